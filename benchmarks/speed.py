"""How fast scgap trains and predicts, beside OTT's losses, the reference, CellFlow, and the floor of the machine.

    python benchmarks/speed.py                    # everything, in about half an hour on two cores
    python benchmarks/speed.py steps --quick      # one part, smallest sizes
    python benchmarks/speed.py steps --no-rivals  # where no other environment can be made, as on a bare GPU machine

Each part prints its tables and keeps them in README.md, with versions and device. Rivals run in environments of their
own, which are made at first.
"""

import argparse
from importlib import import_module

import report

PACKAGES = ("scgap", "jax", "ott-jax", "flax")
PARTS = ("steps", "choices", "scaling", "start", "sachs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="smallest sizes, nothing is stored")
    parser.add_argument("--no-rivals", action="store_true", help="leave out what needs an environment of its own")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    for part in options.parts or PARTS:
        # Imported when it is run: the steps need the core's packages only, as on a bare GPU machine.
        tables = import_module(part).tables(quick=options.quick, rivals=not options.no_rivals)
        if options.quick:
            print("\n".join(tables))
        else:
            report.store(f"speed: {part}, {report.platform()}", tables, report.versions(*PACKAGES))


if __name__ == "__main__":
    main()
