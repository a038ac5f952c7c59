/* The wall clock of a build, shifted by SHIFT seconds, or stopped at STOPPED_AT seconds since 1970.

   Preloaded into each program of a build (ld.so(8)). Nothing but the time of day changes: monotonic clocks, and so
   sleeps and most time limits, stay as they are, and so do the times of files, which the kernel sets. A deadline
   that a program worked out from the time of day is brought back to the real one before the kernel gets to see it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(time_t) == 8 && sizeof(long) == 8, "the system call below fills in 64-bit times");

/* A deadline below is one by a monotonic clock: no machine has been up for as long. */
#define FIRST_WALL_TIME 1000000000

static void show(struct timespec *at)
{
#ifdef STOPPED_AT
	at->tv_sec = STOPPED_AT;
	at->tv_nsec = 0;
#else
	at->tv_sec += SHIFT;
#endif
}

/* Not through dlsym: memory allocators ask for the time before anything can be looked up. */
int clock_gettime(clockid_t clock, struct timespec *at)
{
	int failed = (int)syscall(SYS_clock_gettime, clock, at);
	if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI))
		show(at);
	return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
	struct timespec now;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &now);
	at->tv_sec = now.tv_sec;
	at->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *at)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (at)
		*at = now.tv_sec;
	return now.tv_sec;
}

int timespec_get(struct timespec *at, int base)
{
	if (base != TIME_UTC)
		return 0;
	clock_gettime(CLOCK_REALTIME, at);
	return base;
}

static struct timespec real(const struct timespec *deadline)
{
	struct timespec now, shown, at = *deadline;
	if (at.tv_sec < FIRST_WALL_TIME)
		return at;
	syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
	shown = now;
	show(&shown);
	at.tv_sec += now.tv_sec - shown.tv_sec;
	at.tv_nsec += now.tv_nsec - shown.tv_nsec;
	if (at.tv_nsec >= 1000000000) {
		at.tv_nsec -= 1000000000;
		at.tv_sec++;
	}
	return at;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int pthread_cond_timedwait(pthread_cond_t *restrict what, pthread_mutex_t *restrict lock,
			   const struct timespec *restrict deadline)
{
	struct timespec at = real(deadline);
	return NEXT(pthread_cond_timedwait)(what, lock, &at);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict lock, const struct timespec *restrict deadline)
{
	struct timespec at = real(deadline);
	return NEXT(pthread_mutex_timedlock)(lock, &at);
}

int sem_timedwait(sem_t *restrict what, const struct timespec *restrict deadline)
{
	struct timespec at = real(deadline);
	return NEXT(sem_timedwait)(what, &at);
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *wanted, struct timespec *rest)
{
	struct timespec at = *wanted;
	if (clock == CLOCK_REALTIME && flags & TIMER_ABSTIME)
		at = real(wanted);
	return NEXT(clock_nanosleep)(clock, flags, &at, rest);
}
