"""The part of a C file that is the same for every cell: memory, copies in and out, and matrix products.

A product W u keeps its sums in registers: for a panel of rows of W, and all columns of a chunk, one entry of u is read
for each k and multiplied with the panel's column. W is packed first, panel by panel, in the order in which it is read.
With one column the roles change: a vector is a panel's column. The vectors are GCC's and Clang's, for any processor.
"""

from __future__ import annotations

HEAD = """\
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
"""

# How one call is described. The arrays follow in the order of the lines that unpack them.
RUN = """\
/* An array, as NumPy's attribute __array_struct__ describes it; strides are in bytes. */
struct array {
    int two, axes;
    char kind;
    int item_bytes, flags;
    const intptr_t *lengths, *strides;
    void *data;
};

struct run {
    long T, first, last;  /* this call runs the steps from first to last, of T */
    long batch, chunks;
    long block, line;  /* for sums over time, `block` steps fill rows of `line` entries */
    long chunk_bytes, work_bytes;
    char *memory, *work;
    const struct array *const *array;
};

/* The next array of a memory. Arrays begin at different lines of the cache, which holds few of the same. */
static inline void *take(char **memory, long bytes)
{
    char *taken = *memory;
    *memory += (bytes + 4095) / 4096 * 4096 + 320;
    return taken;
}

struct part { const struct run *run; long thread, first, last; void (*chunk)(const struct run *, long, char *); };

static void *run_part(void *given)
{
    const struct part *part = given;
    for (long chunk = part->first; chunk < part->last; chunk++)
        part->chunk(part->run, chunk, part->run->work + part->thread * part->run->work_bytes);
    return NULL;
}

/* Share the chunks out to threads; each runs all steps of its own columns. */
static void run_chunks(const struct run *run, long threads, void (*chunk)(const struct run *, long, char *))
{
    enum { MOST = 64 };
    pthread_t thread[MOST];
    bool started[MOST];
    struct part part[MOST];
    threads = threads > run->chunks ? run->chunks : threads > MOST ? MOST : threads;
    for (long k = threads - 1; k >= 0; k--) {
        part[k] = (struct part){run, k, run->chunks * k / threads, run->chunks * (k + 1) / threads, chunk};
        started[k] = k > 0 && pthread_create(&thread[k], NULL, run_part, &part[k]) == 0;
        if (!started[k])
            run_part(&part[k]);
    }
    for (long k = 1; k < threads; k++)
        if (started[k])
            pthread_join(thread[k], NULL);
}
"""

COPIES = """\
/* The entry of (step t,) row 0 and a column, and the strides of rows and columns. */
static inline TYPE *entry_TYPE(const struct array *x, long t, long column, long *row_stride, long *column_stride)
{
    const intptr_t *stride = x->strides + x->axes - 2;
    const long size = sizeof(TYPE);
    *row_stride = stride[0] / size;
    *column_stride = stride[1] / size;
    return (TYPE *)x->data + column * *column_stride + (x->axes == 3 ? t * (x->strides[0] / size) : 0);
}

/* Copy `columns` columns of x at step t side by side into `width` of them; the last one fills the rest. */
static inline void load_TYPE(TYPE *restrict to, const struct array *x, long t, long column, long rows, long width,
                             long columns)
{
    long row, across;
    const TYPE *from = entry_TYPE(x, t, column, &row, &across);
    if (across == 1 && columns == width)
        for (long i = 0; i < rows; i++)
            memcpy(to + i * width, from + i * row, width * sizeof(TYPE));
    else if (row == 1 && width == 1)
        memcpy(to, from, rows * sizeof(TYPE));
    else
        for (long first = 0; first < rows; first += 16)
            for (long j = 0; j < width; j++) {
                const TYPE *source = from + (j < columns ? j : columns - 1) * across;
                for (long i = first; i < rows && i < first + 16; i++)
                    to[i * width + j] = source[i * row];
            }
}

/* Copy the first `columns` columns of `width` into y at step t. */
static inline void store_TYPE(const TYPE *from, const struct array *y, long t, long column, long rows, long width,
                              long columns)
{
    long row, across;
    TYPE *restrict to = entry_TYPE(y, t, column, &row, &across);
    if (across == 1 && columns == width)
        for (long i = 0; i < rows; i++)
            memcpy(to + i * row, from + i * width, width * sizeof(TYPE));
    else if (row == 1 && width == 1)
        memcpy(to, from, rows * sizeof(TYPE));
    else
        for (long first = 0; first < rows; first += 16)
            for (long j = 0; j < columns; j++)
                for (long i = first; i < rows && i < first + 16; i++)
                    to[i * row + j * across] = from[i * width + j];
}
"""

VECTORS = """\
#if defined(__AVX512F__)
enum { VECTOR = 64, SUMS = 16 };
#elif defined(__AVX__)
enum { VECTOR = 32, SUMS = 8 };
#else
enum { VECTOR = 16, SUMS = 8 };
#endif
#if defined(__clang__)
#define FUSED  /* a b + c in one instruction */
#else
#define FUSED __attribute__((optimize("fp-contract=fast")))
#endif
"""

# Products with COLUMNS > 1 columns
BY_COLUMNS = """\
enum { BYTES_TYPE = COLUMNS * sizeof(TYPE) < VECTOR ? COLUMNS * sizeof(TYPE) : VECTOR,
       LANES_TYPE = BYTES_TYPE / sizeof(TYPE), ACROSS_TYPE = COLUMNS / LANES_TYPE,
       PANEL_TYPE = SUMS / ACROSS_TYPE > 1 ? SUMS / ACROSS_TYPE : 1 };
typedef TYPE vector_TYPE __attribute__((vector_size(BYTES_TYPE), aligned(sizeof(TYPE)), may_alias));

static void pack_TYPE(const TYPE *W, long row, long column, long rows, long inner, TYPE *restrict panels)
{
    for (long first = 0; first < rows; first += PANEL_TYPE, panels += PANEL_TYPE * inner) {
        long height = rows - first < PANEL_TYPE ? rows - first : PANEL_TYPE;
        if (height < PANEL_TYPE)
            memset(panels, 0, PANEL_TYPE * inner * sizeof(TYPE));
        if (row == 1 && height == PANEL_TYPE)
            for (long k = 0; k < inner; k++)
                memcpy(panels + k * PANEL_TYPE, W + first + k * column, PANEL_TYPE * sizeof(TYPE));
        else
            for (long r = 0; r < height; r++)
                for (long k = 0; k < inner; k++)
                    panels[k * PANEL_TYPE + r] = W[(first + r) * row + k * column];
    }
}

/* z = W u: W (rows, inner) in panels, u (inner, COLUMNS), z (rows, COLUMNS) */
static FUSED void product_TYPE(long rows, long inner, const TYPE *panels, const TYPE *u, TYPE *z)
{
    #pragma clang fp contract(fast)
    for (long first = 0; first < rows; first += PANEL_TYPE) {
        vector_TYPE sum[PANEL_TYPE][ACROSS_TYPE] = {0};
        for (long k = 0; k < inner; k++, panels += PANEL_TYPE) {
            vector_TYPE x[ACROSS_TYPE];
            for (int j = 0; j < ACROSS_TYPE; j++)
                x[j] = *(const vector_TYPE *)(u + k * COLUMNS + j * LANES_TYPE);
            #pragma GCC unroll 16
            for (int r = 0; r < PANEL_TYPE; r++)
                for (int j = 0; j < ACROSS_TYPE; j++)
                    sum[r][j] += panels[r] * x[j];
        }
        #pragma GCC unroll 16
        for (int r = 0; r < PANEL_TYPE; r++)
            if (r < rows - first)
                for (int j = 0; j < ACROSS_TYPE; j++)
                    *(vector_TYPE *)(z + (first + r) * COLUMNS + j * LANES_TYPE) = sum[r][j];
    }
}
"""

# Products with one column
BY_ROWS = """\
enum { LANES_TYPE = VECTOR / sizeof(TYPE), WIDEST_TYPE = 8, PADDED_TYPE = LANES_TYPE * WIDEST_TYPE };
typedef TYPE vector_TYPE __attribute__((vector_size(VECTOR), aligned(sizeof(TYPE)), may_alias));

/* Vectors of a panel: the rows in as few panels of equal height as 8 vectors allow. */
static inline long across_TYPE(long rows)
{
    long vectors = (rows + LANES_TYPE - 1) / LANES_TYPE, panels = (vectors + WIDEST_TYPE - 1) / WIDEST_TYPE;
    return (vectors + panels - 1) / panels;
}

static void pack_TYPE(const TYPE *W, long row, long column, long rows, long inner, TYPE *restrict panels)
{
    long height = across_TYPE(rows) * LANES_TYPE;
    for (long first = 0; first < rows; first += height, panels += height * inner) {
        long own = rows - first < height ? rows - first : height;
        if (own < height)
            memset(panels, 0, height * inner * sizeof(TYPE));
        if (row == 1)
            for (long k = 0; k < inner; k++)
                memcpy(panels + k * height, W + first + k * column, own * sizeof(TYPE));
        else
            for (long r = 0; r < own; r++)
                for (long k = 0; k < inner; k++)
                    panels[k * height + r] = W[(first + r) * row + k * column];
    }
}

static inline FUSED __attribute__((always_inline)) void panel_TYPE(const int across, long rows, long inner,
                                                                   const TYPE *panel, const TYPE *u, TYPE *z)
{
    #pragma clang fp contract(fast)
    vector_TYPE sum[WIDEST_TYPE] = {0};
    for (long k = 0; k < inner; k++, panel += across * LANES_TYPE)
        #pragma GCC unroll 8
        for (int v = 0; v < across; v++)
            sum[v] += u[k] * *(const vector_TYPE *)(panel + v * LANES_TYPE);
    if (rows >= across * LANES_TYPE)
        for (int v = 0; v < across; v++)
            *(vector_TYPE *)(z + v * LANES_TYPE) = sum[v];
    else
        memcpy(z, sum, rows * sizeof(TYPE));
}

/* z = W u: W (rows, inner) in panels, u (inner), z (rows) */
static FUSED void product_TYPE(long rows, long inner, const TYPE *panels, const TYPE *u, TYPE *z)
{
    #pragma clang fp contract(fast)
    long across = across_TYPE(rows), height = across * LANES_TYPE;
    for (long first = 0; first < rows; first += height, panels += height * inner)
        switch (across) {
        case 1: panel_TYPE(1, rows - first, inner, panels, u, z + first); break;
        case 2: panel_TYPE(2, rows - first, inner, panels, u, z + first); break;
        case 3: panel_TYPE(3, rows - first, inner, panels, u, z + first); break;
        case 4: panel_TYPE(4, rows - first, inner, panels, u, z + first); break;
        case 5: panel_TYPE(5, rows - first, inner, panels, u, z + first); break;
        case 6: panel_TYPE(6, rows - first, inner, panels, u, z + first); break;
        case 7: panel_TYPE(7, rows - first, inner, panels, u, z + first); break;
        default: panel_TYPE(8, rows - first, inner, panels, u, z + first);
        }
}
"""

def for_type(text: str, c_type: str) -> str:
    return text.replace("TYPE", c_type)


def taken(count: int) -> int:
    """The bytes that `take` takes for an array of so many."""
    return (count + 4095) // 4096 * 4096 + 320


def panel_entries(rows: int, inner: int) -> int:
    """The entries that the panels of a matrix take at most."""
    return (rows + rows // 8 + 256) * inner
