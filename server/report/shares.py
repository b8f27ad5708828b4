"""The written form of a modality's share: with its range over refits, or as without evidence.

A share of 0 with an interval from 0 to 0 looks like certainty that a modality is worthless. It is the opposite: the
training patients gave no evidence that it helps, so the fit left it out. So neither number is shown.
"""

from server.run_folder.explanation import Explanation, ModalityEntry
from shared_model.pages.numbers import percent, percent_interval
from shared_model.pages.wording import Words


def tell_share(entry: ModalityEntry, words: Words) -> str:
    """The share, or that the model does not use the modality."""
    return words("shares.unused") if entry.is_unused else percent(entry.share)


def tell_range(entry: ModalityEntry, words: Words) -> str:
    """What stands beside the share: the range over refits, that there is no evidence, or nothing."""
    if entry.is_unused:
        return words("shares.no_evidence")
    ends = "" if entry.share_range is None else words("shares.range", ends=percent_interval(entry.share_range))
    doubt = words("shares.doubt") if entry.lacks_evidence else ""
    return ", ".join(filter(None, (doubt, ends)))


def tell_modality(name: str, entry: ModalityEntry, words: Words) -> str:
    """A modality's share in a sentence that names it."""
    beside = tell_range(entry, words)
    share = tell_share(entry, words)
    if not beside:
        return words("shares.alone", name=name, share=share)
    return words("shares.beside", name=name, share=share, beside=beside)


def tell_interval_meaning(explanation: Explanation, words: Words) -> str:
    """What the range beside a share means, or why there is none."""
    made = explanation.share_interval
    if made is not None and made.method == "refits":
        return words("shares.meaning", n=made.replicates)
    if made is not None and made.reason:
        return words("shares.none_because", reason=made.reason)
    return words("shares.none")
