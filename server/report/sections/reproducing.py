"""All that decides the run: settings, versions, hashes, hospitals."""

from server.report.content import RunContent
from server.run_folder.records import Config
from shared_model.pages.blocks import Block, Cell, Folded, Section, Table, Text
from shared_model.pages.wording import Words


def describe_reproducing(content: RunContent, words: Words) -> Section:
    """Tables of all that is needed to repeat and to check the run."""
    title = words("reproducing.title")
    config = content.config
    if config is None:
        return Section("reproducing", title, (Text(words("reproducing.none")),))
    blocks: list[Block] = [
        Text(words("reproducing.intro")),
        _pairs("reproducing.hashes", _hashes(content, config, words), words),
        _pairs("reproducing.versions", _versions(config, words), words),
        _hospital_table(config, words),
    ]
    settings = _pairs("reproducing.settings", [(key, _plain(value)) for key, value in config.settings.items()], words)
    blocks.append(Folded(words("reproducing.settings"), (settings,)))
    return Section("reproducing", title, tuple(blocks))


def _pairs(key: str, pairs: list[tuple[str, str]], words: Words) -> Table:
    return Table(
        caption=words(key),
        columns=(words("reproducing.name"), words("reproducing.value")),
        rows=tuple(pairs),
        name=key.rpartition(".")[2],
    )


def _plain(value: str | float) -> str:
    """As the command line takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _hashes(content: RunContent, config: Config, words: Words) -> list[tuple[str, str]]:
    known = {
        "run_id": config.run_id,
        "schema_sha256": config.schema_sha256,
        "weights_sha256": content.model.weights_sha256 if content.model else "",
        "file_sha256": content.model.file_sha256 if content.model else "",
        "preprocessing_sha256": content.model.preprocessing_sha256 if content.model else "",
        "background_id": content.explanation.background_id if content.explanation else "",
        "explained_weights": content.explanation.model_hash if content.explanation else "",
    }
    return [(words(f"reproducing.{key}"), value or words("reproducing.not_made")) for key, value in known.items()]


def _versions(config: Config, words: Words) -> list[tuple[str, str]]:
    return [
        (words("reproducing.protocol"), str(config.protocol)),
        ("Python", config.python or words("reproducing.not_made")),
        *config.packages.items(),
    ]


def _hospital_table(config: Config, words: Words) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (member.site, member.version, ", ".join(member.modalities)) for member in config.roster
    ]
    return Table(
        caption=words("reproducing.hospitals"),
        columns=tuple(words(f"reproducing.{key}") for key in ("hospital", "version", "modalities")),
        rows=tuple(rows),
        name="hospitals-taking-part",
    )
