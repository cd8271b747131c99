#!/usr/bin/env python3
"""Becomes a program in a container's root: enter.py ROOT UID:GID PROGRAM ARGUMENT...

Without capabilities and without a way to get any, as with `cap_drop: [ALL]` and `no-new-privileges`. It needs
nothing of the root but the program."""

import ctypes
import os
import sys

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
root, user, program = sys.argv[1:4]
uid, gid = map(int, user.split(":"))
prctl = ctypes.CDLL(None, use_errno=True).prctl
os.chroot(root)
os.chdir("/")
os.setgroups([])
if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
    sys.exit("the kernel gives no `no new privileges`")
capability = 0
while prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
    capability += 1
os.setgid(gid)
os.setuid(uid)
os.execv(program, sys.argv[3:])
