"""How good the maps are that scgap learns, and what its defaults do to them.

    python benchmarks/quality.py                   # everything, in about half an hour on two cores
    python benchmarks/quality.py selfterm --quick  # one part, a smoke run

`moons` is the target of OTT's tutorial, `selfterm` and `batch` compare the divergence's self terms and batch sizes,
`epsilon` is what the defaults of both regularisations rest on, `tiers` asks for conditions that were held out,
`scores` is `scgap.tl.evaluate` in full, `representations` fits in genes, components and an autoencoder's space. Each
part prints its tables and keeps them in README.md.
"""

import argparse
from importlib import import_module

import report

PACKAGES = ("scgap", "jax", "ott-jax", "flax")
PARTS = ("moons", "selfterm", "batch", "epsilon", "tiers", "scores", "representations")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="few updates, one seed, nothing is stored")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    for part in options.parts or PARTS:
        tables = import_module(part).tables(quick=options.quick)
        if options.quick:
            print("\n".join(tables))
        else:
            report.store(f"quality: {part}, {report.platform()}", tables, report.versions(*PACKAGES))


if __name__ == "__main__":
    main()
