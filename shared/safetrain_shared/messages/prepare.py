"""Sentences of `safetrain prepare`."""

from safetrain_shared.i18n import marked as _

SENTENCES: dict[str, str] = {
    "prepare.map_form": _(
        "{text} does not say which column holds what. Write --map question=COLUMN,answer=COLUMN; "
        "the names before the = are {known}."
    ),
    "prepare.unknown_kind": _(
        "{path} is of a kind that is not read ({kind}). Save it as JSON lines, JSON, CSV, TSV, "
        "Excel (.xlsx), Parquet, text or Markdown."
    ),
    "prepare.extra_missing": _(
        "To read this file, {name} is needed: pip install 'safetrain[prepare]'"
    ),
    "prepare.output_taken": _(
        "{path} is not empty, and was not made by prepare. Name a new folder with --output."
    ),
    "prepare.empty": _("{path} holds no rows."),
    "prepare.no_columns": _(
        "{path}: it is not clear what holds the question and what the answer (columns: {keys}). "
        "Say it with --map question=COLUMN,answer=COLUMN."
    ),
    "prepare.nothing_fits": _(
        "{path}: no row could be read as {form}. Say which column holds what with --map."
    ),
    "prepare.hub_name": _(
        "{name} is no data set of the hub. Write hf:OWNER/NAME, or hf:OWNER/NAME/FILE for one file."
    ),
    "prepare.hub_no_data": _(
        "{name} holds no file that is read: Parquet, JSON, CSV, TSV, Excel or text."
    ),
    "prepare.hub_unknown": _("The hub has no data set {repository}. Check its name."),
    "prepare.hub_offline": _(
        "The data set {repository} is not on this machine yet and the hub does not answer. Check "
        "the network, or name a file."
    ),
    "prepare.weight": _(
        "{weight} is no weight of a file. It is a number above 0 and at most {most:num}, as in "
        "A.csv=2 or B.jsonl=0.5."
    ),
    "prepare.row_dropped": _("dropped: {missing} is missing or empty"),
    "prepare.all_alike": _(
        "All samples say nearly the same, so none can be kept apart for validation. {path} was not "
        "written."
    ),
}
