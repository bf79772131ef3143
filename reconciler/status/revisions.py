"""What is applied, as one text: `v1.0.1@sha1:<commit>`, or `dir@sha256:<digest>` of a directory. Pure."""


def split_revision(text: str) -> tuple[str, str]:
    """The ref and the commit of a revision; of a directory `dir` and the digest of its tree."""
    ref, _, named = text.rpartition("@")
    return ref, named.partition(":")[2]
