/*
 * Debian's user-mode Linux keeps a process's floating-point registers in a buffer that is too small for those of a
 * processor with AMX. Reading a part of them works, but the host's kernel takes back only the whole, and so the guest
 * dies with its first process. This stands before libc's ptrace(), and puts the part back into a whole; the tiles of
 * AMX itself, which nothing in the guest uses, stay empty. It does nothing else.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NT_X86_XSTATE 0x202
#define WHOLE (64 * 1024)
#define KINDS_AT 512     /* of registers that are held, a bit each: the head of the extended area */
#define KINDS_KNOWN 0xff /* x87 to AVX-512; what follows is larger than the guest's buffer */

static __thread char whole[WHOLE] __attribute__((aligned(64)));
static __thread size_t length; /* of what was last read, of whatever process: it is the same for all */

static long ask(long request, pid_t pid, void *address, void *data)
{
	return syscall(SYS_ptrace, request, pid, address, data);
}

static void leave_out_unknown(char *registers, size_t length)
{
	uint64_t kinds;

	if (length < KINDS_AT + sizeof kinds)
		return;
	memcpy(&kinds, registers + KINDS_AT, sizeof kinds);
	kinds &= KINDS_KNOWN;
	memcpy(registers + KINDS_AT, &kinds, sizeof kinds);
}

static long registers(long request, pid_t pid, struct iovec *part)
{
	struct iovec all = {whole, WHOLE};
	void *kind = (void *)NT_X86_XSTATE;

	if (request == PTRACE_GETREGSET || !length) {
		if (ask(PTRACE_GETREGSET, pid, kind, &all) < 0)
			return -1;
		length = all.iov_len;
	}
	if (part->iov_len > length)
		part->iov_len = length;
	if (request == PTRACE_GETREGSET) {
		memcpy(part->iov_base, whole, part->iov_len);
		leave_out_unknown(part->iov_base, part->iov_len);
		return 0;
	}
	memcpy(whole, part->iov_base, part->iov_len);
	leave_out_unknown(whole, length);
	all.iov_len = length;
	return ask(PTRACE_SETREGSET, pid, kind, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list more;
	pid_t pid;
	void *address, *data;
	long value, result;

	va_start(more, request);
	pid = va_arg(more, pid_t);
	address = va_arg(more, void *);
	data = va_arg(more, void *);
	va_end(more);
	if ((request == PTRACE_GETREGSET || request == PTRACE_SETREGSET) && (long)address == NT_X86_XSTATE)
		return registers(request, pid, data);
	if (request != PTRACE_PEEKTEXT && request != PTRACE_PEEKDATA && request != PTRACE_PEEKUSER)
		return ask(request, pid, address, data);
	result = ask(request, pid, address, &value); /* the kernel writes what libc returns */
	if (result < 0)
		return result;
	errno = 0;
	return value;
}
