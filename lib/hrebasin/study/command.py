"""The command `hrebasin`: a subcommand for each thing that is done from a shell.

Every subcommand imports what it needs when it runs, since some need packages that others do without.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .merge_command import add_commands
from .running.surroundings import begin_anew, own_surroundings

REFUSED, FAILED, STOPPED = 2, 1, 130  # exit codes


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when all went well."""
    if arguments is None:
        begin_anew()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = _parser()
    given, given.more = parser.parse_known_args(arguments[:end])
    if hasattr(given, "values"):  # argparse takes none after an option
        given.values += [text for text in given.more if not text.startswith("-")]
        given.more = [text for text in given.more if text.startswith("-")]
    if given.more and not given.passes_on:
        parser.error(f"unrecognized arguments: {' '.join(given.more)}")
    given.more += arguments[end + 1 :]
    with own_surroundings():
        return _acted(given)


def _acted(given: argparse.Namespace) -> int:
    """What a subcommand returns; errors of its input become a line and a code."""
    try:
        _check_checkout()
        return given.act(given) or 0
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == "hrebasin":
            raise
        needs = f"hrebasin {given.command} needs the package {error.name}: install hrebasin[study]"
        print(f"error: {needs if error.name else error}", file=sys.stderr)
        return REFUSED
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        return STOPPED


def _check_checkout() -> None:
    """Raise ValueError in a checkout whose environment runs the code of another one, of which it is a copy."""
    from ..files import project_root

    try:
        library = project_root() / "lib" / "hrebasin"
    except FileNotFoundError:
        return
    running = Path(__file__).resolve().parents[1]
    if (library / "study" / "command.py").is_file() and library.resolve() != running:
        raise ValueError(
            f"this command runs the code in {running}, not that of the project here, {library}: "
            "make builds an environment of its own"
        )


def _run(given: argparse.Namespace) -> int:
    from .running.command_line import run_values
    from .running.workflow import run

    where = {"cores": given.cores, "elsewhere": given.workflow_profile, "dry_run": given.dry_run}
    return run(run_values(given.values), part=given.part, more=given.more, **where)


def _notebook(given: argparse.Namespace) -> int:
    from .running.parent_process import end_with

    if given.parent:
        end_with(given.parent)
    from .running.command_line import notebook_parameters
    from .running.notebook_runner import run_notebook

    try:
        parameters = notebook_parameters(given.parameters, files=given.f, texts=given.y, values=given.p, raw=given.r)
        origin = {"setting": given.setting, "images_digest": given.images}
        origin = {name: value for name, value in origin.items() if value}
        how = {"label": given.label, "threads": given.threads, "origin": origin}
        if given.device:
            parameters |= _place(given)
        run_notebook(given.notebook, given.output, parameters, **how)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"[{given.label or given.notebook.stem}] {error}", file=sys.stderr)
        return FAILED
    return 0


def _place(given: argparse.Namespace) -> dict:
    """Where a job of a run computes and writes, of what its notebook declares."""
    from .running.notebook_runner import declared_parameters

    place = {"run_folder": str(given.output.parent.parent), "device": given.device if given.gpus else "cpu"}
    return {name: place[name] for name in place.keys() & declared_parameters(given.notebook)}


def _bench(given: argparse.Namespace) -> int:
    from ..files import project_root

    notebook = project_root() / "notebooks" / "90_benchmarks.ipynb"
    output = project_root() / "data" / "runs" / "benchmarks" / notebook.name
    return main(["notebook", str(notebook), str(output), *(["-r", "dataset", given.dataset] if given.dataset else [])])


def _publish(given: argparse.Namespace) -> None:
    from .publishing.publish import publish

    written = publish(given.run, given.folder, source=given.images, add=given.add, replace=given.replace)
    print(f"{len(written)} data sets are in {written[0].parent}; `make figures` redraws figures and documents")


def _figures(given: argparse.Namespace) -> None:
    from ..files import project_root
    from .publishing.places import places
    from .publishing.publish import conclude
    from .publishing.readme import redraw_all

    for place in places(project_root()) if given.conclude else ():
        conclude(place.data)
    redraw_all(project_root())


def _verify(given: argparse.Namespace) -> int:
    from ..files import project_root
    from .publishing.verify import verify_all

    checked, wrong = verify_all(given.project or project_root())
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    if not wrong:
        print("\n".join(f"checked: {line}" for line in checked))
    return FAILED if wrong else 0


def _lab(given: argparse.Namespace) -> None:
    from .running.lab import start

    start(given.more)


def _costs(given: argparse.Namespace) -> None:
    from ..files import project_root
    from .running.costs import table
    from .settings import load_setting

    setting = load_setting(project_root() / "config" / f"{given.setting}.yaml")
    print(f"{setting.n_groups} trees of {setting.leaves}, predicted:\n\n{table(setting)}")


def _settings(given: argparse.Namespace) -> None:
    from ..files import project_root
    from .settings import load_setting, schema

    folder = project_root() / "config"
    if given.schema:
        print(schema(folder / "sample.yaml"), end="")
        return
    for path in given.files or sorted(folder.glob("*.yaml")):
        setting = load_setting(path)
        print(f"{path.stem}: {setting.n_groups} trees of {setting.leaves} on {setting.dataset}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hrebasin", description="Hierarchical Re-Basin, the method and its study.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, act, what: str, *, passes_on: bool = False, epilog: str = "") -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.", epilog=epilog)
        added.set_defaults(act=act, passes_on=passes_on)
        return added

    run = add(
        "run", _run, "train, merge, attack, measure and draw", epilog="What follows -- goes to Snakemake as it is."
    )
    run.add_argument("--cores", help="a number or all, which is the default on this machine")
    run.add_argument("--workflow-profile", metavar="FOLDER", help="Snakemake's: where else jobs run, e.g. config/slurm")
    run.add_argument("--dry-run", action="store_true", help="only say what would run")
    run.add_argument("--part", help="train, merge, attack, measure, questions, or publish, which also copies results")
    values = "setting= (by default sample), run= (a name for the results), ask= (open questions), and single values"
    run.add_argument("values", nargs="*", metavar="key=value", help=values)

    notebook = add("notebook", _notebook, "run one notebook, its parameters checked first")
    notebook.add_argument("notebook", type=Path)
    notebook.add_argument("output", type=Path, help="where the executed copy goes")
    notebook.add_argument("parameters", nargs="?", default="{}", type=json.loads, help="JSON object")
    many = {"action": "append", "default": []}
    notebook.add_argument("-p", **many, nargs=2, metavar=("NAME", "VALUE"), help="a parameter")
    notebook.add_argument("-r", **many, nargs=2, metavar=("NAME", "TEXT"), help="a parameter that is a text")
    notebook.add_argument("-y", **many, metavar="YAML", help="parameters as YAML text")
    notebook.add_argument("-f", **many, metavar="FILE", type=Path, help="a YAML file of parameters")
    notebook.add_argument("--device", help="parameter of a notebook that declares it; the copy's run is its run_folder")
    notebook.add_argument("--gpus", type=int, default=1, help="that it may use; without one, the device is the CPU")
    whose = "whose values these are, for the data sets to tell; by default the run's name"
    notebook.add_argument("--setting", help=whose)
    notebook.add_argument("--images", metavar="DIGEST", help="of the files of images, for the data sets to tell")
    notebook.add_argument("--label", default="", help="stands before every line of output")
    notebook.add_argument("--threads", type=int, help="CPU threads; by default all")
    notebook.add_argument("--parent", type=int, help="process with which this one ends")

    publish = add("publish", _publish, "copy the data sets of a finished run to the published ones")
    publish.add_argument("run", type=Path, help="folder of the run")
    publish.add_argument("folder", type=Path, nargs="?", help="where to, by default data/published/<its setting>")
    publish.add_argument("--images", default="", help="what readers are told of the images")
    how = publish.add_mutually_exclusive_group()
    how.add_argument("--add", action="store_true", help="beside the groups that are there")
    how.add_argument("--replace", action="store_true", help="what is there, though groups or questions would go")

    figures = add("figures", _figures, "redraw figures, page and documents from the published data sets")
    figures.add_argument("--conclude", action="store_true", help="draw ledger and answers anew first")

    verify = add("verify", _verify, "check published data sets and figures against their sums and one another")
    verify.add_argument("project", type=Path, nargs="?", help="folder with data/published and figures, by default this")

    add("lab", _lab, "JupyterLab on the notebooks, on this machine only; takes JupyterLab's options", passes_on=True)

    costs = add("costs", _costs, "predict the hours of a run")
    costs.add_argument("setting", help="name of a file in config/")

    bench = add("bench", _bench, "compare speed with the alternatives")
    bench.add_argument("--dataset", help="images, by default the notebook's")

    add_commands(add)

    settings = add("settings", _settings, "check settings, by default all of config/")
    settings.add_argument("files", nargs="*", type=Path, metavar="FILE")
    settings.add_argument("--schema", action="store_true", help="print their JSON schema, for editors")
    return parser


if __name__ == "__main__":
    sys.exit(main())
