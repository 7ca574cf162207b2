#include "textflag.h"

DATA ·initCode(SB)/8, $·initText(SB)
GLOBL ·initCode(SB), RODATA|NOPTR, $8

// A container's init: init.go says what it does. It is started by the kernel,
// not by Go, with argc, argv and the environment on its stack. It calls nothing
// and writes only below the stack pointer: with all signals blocked, nothing
// else does.
//
//	BX   the stack at the start
//	R15  memory: 0 a wait status or a pid, 8 a set of signals, 16 a timespec,
//	     32 a struct signalfd_siginfo
//	R12  the command's pid, 0 where init is idle
//	R13  what a part keeps over a system call
//	R14  the descriptor that signals are read from: sigtimedwait(2) would show
//	     them as neither blocked nor caught while it waits
TEXT ·initText(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ	SP, BX
	LEAQ	-256(BX), R15
	XORQ	R12, R12

	MOVQ	$157, AX		// prctl(PR_SET_NAME, initName)
	MOVQ	$15, DI
	MOVQ	$0x100000c0, SI
	SYSCALL

	MOVQ	$-1, AX
	MOVQ	AX, 8(R15)
	MOVQ	$14, AX			// rt_sigprocmask(SIG_SETMASK, all)
	MOVQ	$2, DI
	LEAQ	8(R15), SI
	XORQ	DX, DX
	MOVQ	$8, R10
	SYSCALL

	MOVQ	$289, AX		// signalfd4(-1, all, SFD_CLOEXEC)
	MOVQ	$-1, DI
	LEAQ	8(R15), SI
	MOVQ	$8, DX
	MOVQ	$0x80000, R10
	SYSCALL
	TESTQ	AX, AX
	JLT	failed
	MOVQ	AX, R14

	CMPQ	0(BX), $1
	JEQ	reap

	MOVQ	$56, AX			// clone(SIGCHLD)
	MOVQ	$17, DI
	XORQ	SI, SI
	XORQ	DX, DX
	XORQ	R10, R10
	XORQ	R8, R8
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	JLT	failed
	MOVQ	AX, R12

reap:
	MOVQ	$61, AX			// wait4(-1, status, WNOHANG)
	MOVQ	$-1, DI
	MOVQ	R15, SI
	MOVQ	$1, DX
	XORQ	R10, R10
	SYSCALL
	TESTQ	AX, AX
	JLE	sleep
	CMPQ	AX, R12
	JNE	reap
	MOVL	0(R15), DI		// the command has ended
	MOVL	DI, AX
	ANDL	$0x7f, AX
	JNE	signalled
	SHRL	$8, DI
	ANDL	$0xff, DI
	JMP	exit
signalled:
	LEAL	128(AX), DI
	JMP	exit

sleep:
	XORQ	AX, AX			// read
	MOVQ	R14, DI
	LEAQ	32(R15), SI
	MOVQ	$128, DX
	SYSCALL
	CMPQ	AX, $-4			// EINTR
	JEQ	reap
	TESTQ	AX, AX
	JLT	failed
	MOVL	32(R15), AX
	CMPQ	AX, $17			// SIGCHLD
	JEQ	reap
	CMPQ	AX, $21			// SIGTTIN
	JEQ	reap
	CMPQ	AX, $22			// SIGTTOU
	JEQ	reap
	MOVQ	AX, R13
	TESTQ	R12, R12
	JEQ	idle
	MOVQ	$62, AX			// kill(command, signal); ESRCH: the next round tells
	MOVQ	R12, DI
	MOVQ	R13, SI
	SYSCALL
	JMP	reap

idle:
	CMPQ	R13, $13		// SIGPIPE
	JEQ	reap
	CMPQ	R13, $18		// SIGCONT
	JEQ	reap
	CMPQ	R13, $23		// SIGURG
	JEQ	reap
	CMPQ	R13, $28		// SIGWINCH
	JEQ	reap
	MOVQ	$39, AX			// getpid: in a shared pid namespace most are others' processes
	SYSCALL
	CMPQ	AX, $1
	JNE	done
end:
	MOVQ	$62, AX			// kill(-1, signal): once, from then on 0 asks whether anybody is left
	MOVQ	$-1, DI
	MOVQ	R13, SI
	SYSCALL
	TESTQ	AX, AX
	JNE	done
	XORQ	R13, R13
	MOVQ	$0, 16(R15)
	MOVQ	$10000000, 24(R15)
	MOVQ	$35, AX			// nanosleep(10 ms)
	LEAQ	16(R15), DI
	XORQ	SI, SI
	SYSCALL
endReap:
	MOVQ	$61, AX			// wait4(-1, status, WNOHANG)
	MOVQ	$-1, DI
	MOVQ	R15, SI
	MOVQ	$1, DX
	XORQ	R10, R10
	SYSCALL
	TESTQ	AX, AX
	JGT	endReap
	JMP	end
done:
	XORQ	DI, DI
	JMP	exit

child:
	MOVQ	$109, AX		// setpgid(0, 0)
	XORQ	DI, DI
	XORQ	SI, SI
	SYSCALL
	MOVQ	$39, AX			// getpid
	SYSCALL
	MOVL	AX, 0(R15)
	MOVQ	$16, AX			// ioctl(0, TIOCSPGRP, pid): ENOTTY without a terminal
	XORQ	DI, DI
	MOVQ	$0x5410, SI
	MOVQ	R15, DX
	SYSCALL
	MOVQ	$0, 8(R15)
	MOVQ	$14, AX			// rt_sigprocmask(SIG_SETMASK, none)
	MOVQ	$2, DI
	LEAQ	8(R15), SI
	XORQ	DX, DX
	MOVQ	$8, R10
	SYSCALL
	MOVQ	0(BX), AX
	MOVQ	16(BX), DI
	LEAQ	24(BX), SI
	LEAQ	16(BX)(AX*8), DX
	MOVQ	$59, AX			// execve(argv[1], argv+2, environment)
	SYSCALL

failed:
	MOVQ	AX, R13
	MOVQ	$1, AX			// write(2, initMessage)
	MOVQ	$2, DI
	MOVQ	$0x100000d0, SI
	MOVQ	$44, DX
	SYSCALL
	MOVQ	$126, DI
	CMPQ	R13, $-2		// ENOENT
	JNE	exit
	MOVQ	$127, DI
exit:
	MOVQ	$231, AX		// exit_group
	SYSCALL
	BYTE	$0xf0			// the mark
	BYTE	$0x65
	BYTE	$0x6e
	BYTE	$0x64
	BYTE	$0x69
	BYTE	$0x6e
	BYTE	$0x69
	BYTE	$0x74
	RET
