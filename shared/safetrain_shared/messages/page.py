"""Sentences of the page in the browser."""

from safetrain_shared.i18n import marked as _

SENTENCES: dict[str, str] = {
    "page.conversation_too_long": _(
        "The conversation is longer than a model here can read ({limit:int} characters). Begin "
        "anew."
    ),
    "page.no_data": _("There is no data yet. Choose a file first, and wait until it is read."),
    "page.no_model": _("There is no model yet. Choose one first."),
    "page.share": _("{text} is no percentage from 0 to 90."),
    "page.upload_empty": _("{name} is empty."),
    "page.upload_too_large": _(
        "The file is too large to be dropped here ({size:bytes}; at most {limit:bytes}). Point at "
        "it by its path instead."
    ),
}
