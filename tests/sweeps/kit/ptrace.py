"""ptrace(2) and seccomp(2) by ctypes: a process stops around chosen system calls, and can be changed there."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from collections.abc import Collection

SUPPORTED = sys.platform == "linux" and platform.machine() == "x86_64"
NEEDS = "tracing system calls takes Linux on x86-64"

_TRACEME, _CONT, _GETREGS, _SETREGS, _SYSCALL, _SETOPTIONS = 0, 7, 12, 13, 24, 0x4200
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x80 | 0x100000  # SYSGOOD, FORK, VFORK, CLONE, SECCOMP, EXITKILL
EVENT_SECCOMP = 7
SYSCALL_STOP = signal.SIGTRAP | 0x80

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
_LOAD_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _TELL = 0x7FFF0000, 0x7FF00000


_REGISTERS = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)


class Registers(ctypes.Structure):
    """Of x86-64. A system call has its number in `orig_rax`, its arguments in rdi, rsi, rdx, r10, r8, r9."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in _REGISTERS]

    @property
    def arguments(self) -> tuple[int, ...]:
        return self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9

    @property
    def result(self) -> int:
        """What the call returned; below zero: an errno."""
        return ctypes.c_longlong(self.rax).value


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("value", ctypes.c_uint)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction))]


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    return libc


_LIBC = _libc() if SUPPORTED else None


def _ptrace(request: int, thread: int, data: object = None) -> None:
    assert _LIBC is not None
    if _LIBC.ptrace(request, thread, None, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def be_traced(numbers: Collection[int]) -> None:
    """In the child: stop, so that the parent can `attach`, and from then on at these system calls."""
    assert _LIBC is not None
    _ptrace(_TRACEME, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    code = [_Instruction(_LOAD_NUMBER, 0, 0, 0)]
    for left, number in zip(range(len(numbers), 0, -1), numbers, strict=True):
        code.append(_Instruction(_JUMP_IF_EQUAL, left, 0, number))
    code += [_Instruction(_RETURN, 0, 0, _ALLOW), _Instruction(_RETURN, 0, 0, _TELL)]
    program = _Program(len(code), (_Instruction * len(code))(*code))
    for words in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program))):
        if _LIBC.prctl(*words) != 0:
            raise OSError(ctypes.get_errno(), "no seccomp here")


def attach(thread: int) -> None:
    """To a child that has stopped in `be_traced`."""
    _ptrace(_SETOPTIONS, thread, _OPTIONS)


def go_on(thread: int, deliver: int = 0) -> None:
    """Until the next of the chosen calls, with this signal."""
    _ptrace(_CONT, thread, deliver)


def to_its_end(thread: int) -> None:
    """Let the call run, and stop again when it is over."""
    _ptrace(_SYSCALL, thread, 0)


def registers(thread: int) -> Registers:
    found = Registers()
    _ptrace(_GETREGS, thread, ctypes.byref(found))
    return found


def set_registers(thread: int, new: Registers) -> None:
    _ptrace(_SETREGS, thread, ctypes.byref(new))


def refuse(thread: int, regs: Registers, number: int) -> None:
    """At a call's start: it has no effect, and fails with this errno."""
    regs.orig_rax = ctypes.c_ulonglong(-1).value
    regs.rax = ctypes.c_ulonglong(-number).value
    set_registers(thread, regs)
