"""How C is called: the head of every file, one call as a struct, and the threads that compiled programs share.

To start a thread takes some 100 µs, to wake one as long; so a thread that has nothing to do waits awake for a while,
and yields its core meanwhile to others that want it, such as OpenBLAS's. A task that no other thread has begun is done
by the caller, so nobody waits for a thread that sleeps. Which thread runs a task does not change a bit of its result.
"""

HEAD = """\
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
"""

# The arrays follow in the order of the lines that unpack them.
RUN = f"""\
/* An array, as NumPy's C API lays it out (PyArrayObject_fields) behind the head of a Python object; strides are in
   bytes. */
struct array {{
    char head[{object.__basicsize__}];
    void *data;
    int axes;
    const intptr_t *lengths, *strides;
}};

struct run;
typedef void task(const struct run *, long k, char *work);

struct run {{
    long T, first, last;  /* this call runs the steps from first to last, of T */
    long fresh;  /* whether sums over time begin with these steps: their arrays hold nothing yet */
    long batch, chunks;
    long block, line;  /* for sums over time, `block` steps fill rows of `line` entries */
    long at_once;  /* steps that the backward runs before it sums them up */
    long chunk_bytes, work_bytes;  /* of a chunk's values over time, and of a thread's values of a step */
    char *memory, *work;
    const struct array *const *array;
    void (*pool)(const struct run *, long tasks, long threads, task *);
}};
"""

THREADS = f"""\
/* The threads of all programs that minigrad compiles. */

{HEAD}#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

{RUN}
enum {{ MOST = 64, AWAKE = 500000 }};  /* threads, and nanoseconds that one waits awake */
enum {{ FREE, ASKED, AT_WORK }};

static struct worker {{
    atomic_int state;
    pthread_mutex_t lock;
    pthread_cond_t asked;
}} worker[MOST];

static pthread_mutex_t in_use = PTHREAD_MUTEX_INITIALIZER;
static long started = 1;  /* worker 0 is the caller */

static struct {{ const struct run *run; task *task; long tasks; atomic_long next; }} job;

static void take_tasks(long thread)
{{
    for (long k; (k = atomic_fetch_add(&job.next, 1)) < job.tasks;)
        job.task(job.run, k, job.run->work + thread * job.run->work_bytes);
}}

static void rest(void)
{{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}}

static bool change(struct worker *w, int from, int to)
{{
    return atomic_compare_exchange_strong(&w->state, &from, to);
}}

static double now(void)
{{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e9 * time.tv_sec + time.tv_nsec;
}}

static void *work(void *number)
{{
    struct worker *w = &worker[(intptr_t)number];
    for (;;) {{
        const double since = now();
        for (; atomic_load(&w->state) != ASKED && now() - since < AWAKE; sched_yield())
            for (int i = 0; i < 32 && atomic_load(&w->state) != ASKED; i++)
                rest();
        pthread_mutex_lock(&w->lock);
        while (atomic_load(&w->state) != ASKED)
            pthread_cond_wait(&w->asked, &w->lock);
        pthread_mutex_unlock(&w->lock);
        if (change(w, ASKED, AT_WORK)) {{  /* the caller may have done without */
            take_tasks((intptr_t)number);
            atomic_store(&w->state, FREE);
        }}
    }}
    return NULL;
}}

/* A child of this process has none of its threads. */
static void forget(void)
{{
    started = 1;
    pthread_mutex_init(&in_use, NULL);
}}

static void start(long threads)
{{
    static bool known;
    if (!known)
        pthread_atfork(NULL, NULL, forget);
    known = true;
    for (; started < threads; started++) {{
        struct worker *w = &worker[started];
        pthread_t thread;
        atomic_store(&w->state, FREE);
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->asked, NULL);
        if (pthread_create(&thread, NULL, work, (void *)(intptr_t)started))
            break;
        pthread_detach(thread);
    }}
}}

/* Share tasks out to threads; alone if another call has them. */
void pool(const struct run *run, long tasks, long threads, task *task)
{{
    threads = threads < tasks ? threads : tasks;
    threads = threads < MOST ? threads : MOST;
    if (pthread_mutex_trylock(&in_use)) {{
        for (long k = 0; k < tasks; k++)
            task(run, k, run->work);
        return;
    }}
    start(threads);
    job.run = run, job.task = task, job.tasks = tasks;
    atomic_store(&job.next, 0);
    for (long i = 1; i < threads && i < started; i++) {{
        pthread_mutex_lock(&worker[i].lock);
        atomic_store(&worker[i].state, ASKED);
        pthread_cond_signal(&worker[i].asked);
        pthread_mutex_unlock(&worker[i].lock);
    }}
    take_tasks(0);
    for (long i = 1; i < threads && i < started; i++)
        if (!change(&worker[i], ASKED, FREE))
            for (long turn = 0; atomic_load(&worker[i].state) != FREE; turn++)
                turn < 10000 ? rest() : (void)sched_yield();
    pthread_mutex_unlock(&in_use);
}}
"""
