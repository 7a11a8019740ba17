"""What to do about a directory that cannot be written to."""

import errno
import os
import re

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_PERMISSION = "let the user of this process (id {user}) read, write and delete files there: chown or chmod it"
_IN_THE_WAY = "a file is where a directory has to be: move it away, or name another directory"
_REMEDIES = {
    errno.ENOSPC: "the disk is full: make room there, inodes too (df, df -i), or name another directory",
    errno.EDQUOT: "the quota is used up: raise it, make room there, or name another directory",
    errno.EROFS: "the file system is read-only: mount it for writing (disks with errors become so: dmesg)",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENOENT: "there is no such directory and none can be made there: make it, or correct the path",
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EIO: "the disk has errors (dmesg): replace it",
    errno.ESTALE: "the network file system is gone: mount it again",
}


def directory_remedy(said: str) -> str:
    """What to do, by what the operating system said."""
    code = _OS_ERROR.search(said)
    return _REMEDIES.get(int(code[1]) if code else 0, _PERMISSION).format(user=os.geteuid())
