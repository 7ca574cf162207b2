#include "textflag.h"

DATA ·initCode(SB)/8, $·initText(SB)
GLOBL ·initCode(SB), RODATA|NOPTR, $8

// A container's init: init.go says what it does. It is started by the kernel,
// not by Go, with argc, argv and the environment on its stack. It calls nothing
// and writes only below the stack pointer: with all signals blocked, nothing
// else does.
//
//	R19  the stack at the start
//	R20  memory: 0 a wait status or a pid, 8 a set of signals, 16 a timespec,
//	     32 a struct signalfd_siginfo
//	R21  the command's pid, 0 where init is idle
//	R22  what a part keeps over a system call
//	R23  the descriptor that signals are read from: sigtimedwait(2) would show
//	     them as neither blocked nor caught while it waits
TEXT ·initText(SB), NOSPLIT|NOFRAME, $0-0
	MOVD	RSP, R19
	SUB	$256, R19, R20
	MOVD	ZR, R21

	MOVD	$167, R8		// prctl(PR_SET_NAME, initName)
	MOVD	$15, R0
	MOVD	$0x100000c0, R1
	SVC

	MOVD	$-1, R0
	MOVD	R0, 8(R20)
	MOVD	$135, R8		// rt_sigprocmask(SIG_SETMASK, all)
	MOVD	$2, R0
	ADD	$8, R20, R1
	MOVD	ZR, R2
	MOVD	$8, R3
	SVC

	MOVD	$74, R8			// signalfd4(-1, all, SFD_CLOEXEC)
	MOVD	$-1, R0
	ADD	$8, R20, R1
	MOVD	$8, R2
	MOVD	$0x80000, R3
	SVC
	CMP	$0, R0
	BLT	failed
	MOVD	R0, R23

	MOVD	0(R19), R0
	CMP	$1, R0
	BEQ	reap

	MOVD	$220, R8		// clone(SIGCHLD)
	MOVD	$17, R0
	MOVD	ZR, R1
	MOVD	ZR, R2
	MOVD	ZR, R3
	MOVD	ZR, R4
	SVC
	CMP	$0, R0
	BEQ	child
	BLT	failed
	MOVD	R0, R21

reap:
	MOVD	$260, R8		// wait4(-1, status, WNOHANG)
	MOVD	$-1, R0
	MOVD	R20, R1
	MOVD	$1, R2
	MOVD	ZR, R3
	SVC
	CMP	$0, R0
	BLE	sleep
	CMP	R21, R0
	BNE	reap
	MOVWU	0(R20), R0		// the command has ended
	AND	$0x7f, R0, R1
	CBNZ	R1, signalled
	LSR	$8, R0, R0
	AND	$0xff, R0, R0
	B	exit
signalled:
	ADD	$128, R1, R0
	B	exit

sleep:
	MOVD	$63, R8			// read
	MOVD	R23, R0
	ADD	$32, R20, R1
	MOVD	$128, R2
	SVC
	CMP	$-4, R0			// EINTR
	BEQ	reap
	CMP	$0, R0
	BLT	failed
	MOVWU	32(R20), R0
	CMP	$17, R0			// SIGCHLD
	BEQ	reap
	CMP	$21, R0			// SIGTTIN
	BEQ	reap
	CMP	$22, R0			// SIGTTOU
	BEQ	reap
	MOVD	R0, R22
	CBZ	R21, idle
	MOVD	$129, R8		// kill(command, signal); ESRCH: the next round tells
	MOVD	R21, R0
	MOVD	R22, R1
	SVC
	B	reap

idle:
	CMP	$13, R22		// SIGPIPE
	BEQ	reap
	CMP	$18, R22		// SIGCONT
	BEQ	reap
	CMP	$23, R22		// SIGURG
	BEQ	reap
	CMP	$28, R22		// SIGWINCH
	BEQ	reap
	MOVD	$172, R8		// getpid: in a shared pid namespace most are others' processes
	SVC
	CMP	$1, R0
	BNE	done
end:
	MOVD	$129, R8		// kill(-1, signal): once, from then on 0 asks whether anybody is left
	MOVD	$-1, R0
	MOVD	R22, R1
	SVC
	CBNZ	R0, done
	MOVD	ZR, R22
	MOVD	ZR, 16(R20)
	MOVD	$10000000, R0
	MOVD	R0, 24(R20)
	MOVD	$101, R8		// nanosleep(10 ms)
	ADD	$16, R20, R0
	MOVD	ZR, R1
	SVC
endReap:
	MOVD	$260, R8		// wait4(-1, status, WNOHANG)
	MOVD	$-1, R0
	MOVD	R20, R1
	MOVD	$1, R2
	MOVD	ZR, R3
	SVC
	CMP	$0, R0
	BGT	endReap
	B	end
done:
	MOVD	ZR, R0
	B	exit

child:
	MOVD	$154, R8		// setpgid(0, 0)
	MOVD	ZR, R0
	MOVD	ZR, R1
	SVC
	MOVD	$172, R8		// getpid
	SVC
	MOVW	R0, 0(R20)
	MOVD	$29, R8			// ioctl(0, TIOCSPGRP, pid): ENOTTY without a terminal
	MOVD	ZR, R0
	MOVD	$0x5410, R1
	MOVD	R20, R2
	SVC
	MOVD	ZR, 8(R20)
	MOVD	$135, R8		// rt_sigprocmask(SIG_SETMASK, none)
	MOVD	$2, R0
	ADD	$8, R20, R1
	MOVD	ZR, R2
	MOVD	$8, R3
	SVC
	MOVD	0(R19), R3
	ADD	$16, R19, R2
	ADD	R3<<3, R2, R2
	MOVD	16(R19), R0
	ADD	$24, R19, R1
	MOVD	$221, R8		// execve(argv[1], argv+2, environment)
	SVC

failed:
	MOVD	R0, R22
	MOVD	$64, R8			// write(2, initMessage)
	MOVD	$2, R0
	MOVD	$0x100000d0, R1
	MOVD	$44, R2
	SVC
	MOVD	$126, R0
	CMP	$-2, R22		// ENOENT
	BNE	exit
	MOVD	$127, R0
exit:
	MOVD	$94, R8			// exit_group
	SVC
	WORD	$0x646e65f0		// the mark
	WORD	$0x74696e69
	RET
