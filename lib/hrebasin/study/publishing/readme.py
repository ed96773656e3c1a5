"""What README and docs say of data and code, written from data and code.

A part stands between ``<!-- NAME: written by make figures -->`` and ``<!-- end -->``; a test holds it to its source.
"""

import ast
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import xarray as xr

from ...files import read_text, write_atomically
from .. import records
from ..benchmarks.plots import goals, lines_table, speed_table
from ..figures import registry as figures
from ..groups import PERCENT, count_groups, tree, tree_stages
from ..notebook_code import notebook_code
from ..questions import load
from ..stages import EXTRA, NOTEBOOKS, PAPER, QUESTIONS, TRAINS_ITS_OWN
from . import early_stopping, page
from .across_settings import paragraphs, stages_table, unknown
from .answers_text import by_question
from .first_screen import findings_table, key, recipe
from .ledger_text import ledger_table, markdown_table, settings_table, trees
from .pictures import title
from .places import Place, Settings, benchmarks_file, places, read_published
from .recommendation import recommended, ways_table
from .short_answer import in_short

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/results.md", "docs/use.md", "docs/trust.md", "docs/performance.md")
PART = re.compile(r"(<!-- ([a-z-]+): written by make figures -->\n).*?(<!-- end -->)", flags=re.DOTALL)
LINK = re.compile(r"(\]\()(?![a-z]+:|#)")  # of a part, from the project's folder
# Modules that every notebook needs, left out of the picture
EVERYWHERE = {"bank", "files", "images.sources", "networks", "study", "study.stages"}
EVERYWHERE |= {"study.figures.paper", "study.figures.regularity", "study.records.networks"}


def parts(root: Path, settings: Settings | None = None) -> dict[str, str]:
    """Every part by name, as Markdown, of what is published, which is read anew unless given."""
    published = places(root)
    settings = settings or {place.setting: read_published(place.data) for place in published}
    everything = [each.results for each in settings.values()]
    claims = next(iter(settings.values())).ledger
    benchmarks = records.read(benchmarks_file(root), stage="benchmarks")
    needs = needed_stages(read_text(root / "Snakefile"))
    return {
        "answer": "".join(f"- **{topic}** {text}\n" for topic, text in in_short(settings)),
        "findings": _findings(settings),
        "family-caption": _family_caption(everything),
        "unknown": f"**What is not known.** {unknown(settings)}\n",
        "published": "".join(
            f"- {published_by(each, place.figures.relative_to(root).as_posix())}\n"
            for place, each in zip(published, everything, strict=True)
        ),
        "data-sets": data_sets(everything[0]),
        "claims": settings_table(settings),
        "stages": figures.Table("", *stages_table(settings)).markdown().rstrip() + "\n",
        "settings": "".join(f"- **{title}** {text}\n" for title, text in paragraphs(settings)),
        "ledger": ledger_table(claims),
        "questions": questions(settings),
        "ways": ways_table(settings),
        "recommendation": recommended(settings),
        "figures": figures_table(published, everything, needs, root),
        "picture": picture(needs, root / "notebooks"),
        "speed": speed_table(benchmarks),
        "speed-caption": figures.benchmark_caption("bench1_speed", benchmarks) + "\n",
        "goals": goals(benchmarks),
        "lines": lines_table(benchmarks),
        "lines-caption": figures.benchmark_caption("bench2_scaling", benchmarks) + "\n",
        "calibration": read_text(root / "figures" / "calibration.md"),  # by `make statistics`
        "faults": read_text(root / "figures" / "faults.md"),  # by `make faults`
    }


def _findings(settings: Settings) -> str:
    """The settings, what came out in each, and merged networks beside early-stopped ones, as Markdown."""
    lines = ["We trained under these settings:", "", *(f"- {recipe(each.results)}" for each in settings.values())]
    lines += ["", key(settings), "", findings_table(settings)]
    word, _ = early_stopping.early_stopped(settings)
    return "\n".join([*lines, f"**{early_stopping.STOPPED}** {word}".rstrip(), "", early_stopping.markdown(settings)])


def _family_caption(everything: Sequence[Mapping[str, xr.Dataset]]) -> str:
    """Of the first setting whose families of networks were measured."""
    asked = next((results["controls"] for results in everything if "controls" in results), None)
    if asked is None:
        return ""
    n, leaves = count_groups(asked), int((asked.method == "unmerged").sum())
    where = f"In `{asked.attrs['setting']}`, n = {n} trees; [what the curves are](figures/fig9_controls.md)."
    few = f"At most {leaves // n} networks stand for a stage of a tree, so numbers differ a little from the table's."
    return f"{where} {few}\n"


def published_by(results: Mapping[str, xr.Dataset], figures_at: str) -> str:
    """What a setting's published results were measured on; ``figures_at`` is their figures' folder."""
    attrs = results["train"].attrs
    values = json.loads(attrs["parameters"])
    trained = values["train_images"] or "all"
    how = f"trained for {values['epochs']} epochs in {values['precision']} on {trained} training images"
    how += " with crop and flip" * bool(values.get("crop_padding") or values.get("flip"))
    text = f"`{attrs['setting']}`: {trees(results['merge'])}, {how} of {attrs['data_source']}."
    numbers = {stage: count_groups(data) for stage, data in results.items()}
    if fewer := [f"{n} for `{stage}.nc`" for stage, n in numbers.items() if n < numbers["train"]]:
        text += f" Of fewer trees: {', '.join(fewer)}."
    return text + (_versions(results["versions"], figures_at) if "versions" in results else "")


def data_sets(results: Mapping[str, xr.Dataset]) -> str:
    """What each data set of a setting holds: its dimensions with their lengths, and its variables, as Markdown."""
    lines = []
    for stage, data in results.items():
        sizes = ", ".join(f"{dim} {size:,}" for dim, size in data.sizes.items())
        variables = ", ".join(f"`{name}` ({', '.join(each.dims)})" for name, each in data.data_vars.items())
        lines.append([f"`{stage}.nc`", sizes, variables])
    return markdown_table(["data set", "dimensions", "variables"], lines)


def _versions(data: xr.Dataset, figures_at: str) -> str:
    """What another version of the same images changes."""
    first, second = data.version.values
    robust = data.robust_accuracy
    change = (robust.sel(version=first, drop=True) - robust.sel(version=second, drop=True)).rename("robust_accuracy")
    largest = max(float(abs(tree(change, stage).mean("group")).max()) for stage in tree_stages(data))
    return (
        f" We hold another version of {data.sizes['image']} test images ({second}): unmerged networks predict the same "
        f"class on {float(tree(data.agreement, 0).mean()):.1%} of them. Robust accuracies differ by at most "
        f"{PERCENT * largest:.1f} points ([table 1]({figures_at}/table1_versions.md))."
    )


def fill(text: str, found: Mapping[str, str], *, up: str = "") -> str:
    """A document with its parts written anew; ``up`` stands before links to files, as ``"../"`` in a folder.

    >>> fill("<!-- answer: written by make figures -->\\nold\\n<!-- end -->", {"answer": "42\\n"}).split("\\n")[1]
    '42'

    Raises:
        ValueError: a part that is not known.
    """
    if unknown := {name for _, name, _ in PART.findall(text)} - set(found):
        raise ValueError(f"no part {sorted(unknown)} can be written; known are {sorted(found)}")
    return PART.sub(lambda match: match[1] + LINK.sub(rf"\1{up}", found[match[2]]) + match[3], text)


def needed_stages(snakefile: str) -> dict[str, list[str]]:
    """Stage -> the stages whose weights it reads, from the rules of the workflow.

    >>> needed_stages("rule merge:\\n    input:\\n        rules.train.output.weights,\\n    output:\\n")
    {'merge': ['train']}
    """
    rules = re.findall(r"^rule (\w+):\n(.*?)^    output:", snakefile, flags=re.MULTILINE | re.DOTALL)
    return {name: re.findall(r"rules\.(\w+)\.output\.weights", body) for name, body in rules if name in NOTEBOOKS}


def figures_table(
    published: Sequence[Place],
    everything: Sequence[Mapping[str, xr.Dataset]],
    needs: Mapping[str, list[str]],
    root: Path,
) -> str:
    """Figure, the notebooks and the data set that it is drawn from, the command and its minutes per tree, as Markdown.

    Of each setting, whose data sets stand in ``everything``, come those figures that the settings before it lack.
    """
    lines, told, known = [], set(), {path.stem for path in (root / "config").glob("*.yaml")}
    for place, results in zip(published, everything, strict=True):
        tables = [name for name, (_, stages) in figures.TABLES.items() if set(stages) <= set(results)]
        names = [name for name in (*figures.drawable(results), *tables) if name not in told]
        told |= set(names)
        for name in names:
            link = f"{place.figures.relative_to(root).as_posix()}/{name}.{'md' if name in tables else 'pdf'}"
            lines.append(_figure_row(name, link, results, needs, known))
    return markdown_table(["figure", "notebooks", "data set", "command", "minutes per tree"], lines)


def _figure_row(name: str, link: str, results: Mapping, needs: Mapping, known: Collection[str]) -> list[str]:
    setting = results["train"].attrs["setting"]
    # a run may have a name of its own, which is no setting's
    run = f" SETTING={setting}" * (setting in known and setting != "sample")
    makes = dict.fromkeys(NOTEBOOKS, f"make paper{run}")
    makes |= {question: f"make questions{run} ASK={question}" for question in QUESTIONS}
    makes["versions"] = f"make versions{run} DATASET=path/to/images"
    needs = dict.fromkeys(TRAINS_ITS_OWN, []) | needs
    stages = (figures.FIGURES | figures.TABLES)[name][1]
    chain = dict.fromkeys(each for stage in stages for each in (*needs.get(stage, ["train", "merge"]), stage))
    made_by = ", ".join(f"`{(NOTEBOOKS | EXTRA)[each]}`" for each in chain)
    minutes = sum(records.seconds(results[each]) / count_groups(results[each]) for each in chain) / 60
    sources = ", ".join(f"`{setting}/{stage}.nc`" for stage in stages)
    commands = ", ".join(f"`{each}`" for each in dict.fromkeys(makes[stage] for stage in stages))
    return [f"[{title(name)}]({link})", made_by, sources, commands, f"{minutes:.0f}"]


def questions(settings: Settings) -> str:
    """The open questions with what each setting's published data say of them, and their notebooks, as Markdown."""
    told, lines = by_question(settings), []
    for stage, name in QUESTIONS.items():
        lines.append(f"- **{load(stage).TITLE}** [`{name}`](notebooks/{name}.ipynb)")
        found = [
            f"  - In `{setting}`: {one['lead']}"
            + f" ({one['groups']})" * bool(one["groups"])
            + f"\n    <details><summary>What else was found</summary>{one['rest']}</details>" * bool(one["rest"])
            for setting, one in told.get(stage, {}).items()
        ]
        lines += found or ["  - Not asked of the published networks yet."]
    return "\n".join(lines) + "\n"


def picture(needs: Mapping[str, list[str]], notebooks: Path) -> str:
    """Notebooks, the library's modules that each calls, and what flows between them, as a Mermaid chart."""
    lines = ["```mermaid", "flowchart LR", "    images[(images)] --> train"]
    for stage, name in {**NOTEBOOKS, "paper": PAPER}.items():
        modules = ", ".join(sorted(_modules(notebooks / f"{name}.ipynb") - EVERYWHERE))
        lines.append(f'    {stage}["<b>{name}</b><br>{modules}"]')
    for stage, sources in needs.items():
        lines += [f"    {source} -- weights --> {stage}" for source in sources]
    lines += [f"    {stage} -- {stage}.nc --> paper" for stage in NOTEBOOKS]
    lines += ["    paper --> results[(ledger, figures, page)]", "```"]
    return "\n".join(lines) + "\n"


def _modules(notebook: Path) -> set[str]:
    """Modules of the library that a notebook imports."""
    tree = ast.parse(notebook_code(notebook))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    inside = {node.module.partition(".")[2] for node in imports if node.module.startswith("hrebasin.")}
    return inside | {alias.name for node in imports if node.module == "hrebasin" for alias in node.names}


def redraw_all(root: Path) -> None:
    """Redraw figures and page from the published data, and write all parts of the documents anew."""
    found = parts(root, page.redraw(places(root), benchmarks=benchmarks_file(root)))
    for name in DOCUMENTS:
        path = root / name
        write_atomically(path, fill(read_text(path), found, up="../" * name.count("/")))
