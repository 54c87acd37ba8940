"""The part of a C file that is the same for every cell: memory, copies in and out, and matrix products.

A product W u keeps its sums in registers: for a panel of rows of W, and all columns of a chunk, one entry of u is read
for each k and multiplied with the panel's column. W is packed first, panel by panel, in the order in which it is read.
With one column the roles change: a vector is a panel's column. The vectors are GCC's and Clang's, for any processor.

A weight's gradient is a sum over time of products, dW += L Rᵀ. The rows of L and R lie over all columns of a block of
steps, so a tile of dW is one product of a few rows each, summed in registers; strips of dW are shared out to threads.
"""

from __future__ import annotations

TAKE = """\
/* The next array of a memory. Arrays begin at different lines of the cache, which holds few of the same. */
static inline void *take(char **memory, long bytes)
{
    char *taken = *memory;
    *memory += (bytes + 4095) / 4096 * 4096 + 320;
    return taken;
}
"""

SHARE = """\
/* A thread is worth its start from a million products on. */
static long worth(const struct run *run, long products, long threads)
{
    const double most = 1 + 1e-6 * products * (run->last - run->first) * run->chunks;
    return most < threads ? (long)most : threads;
}

/* Run the tasks: chunks of the batch for all steps, or strips of the sums over time. */
static void share(const struct run *run, long tasks, long threads, task *task)
{
    if (tasks > 1 && threads > 1)
        run->pool(run, tasks, threads, task);
    else
        for (long k = 0; k < tasks; k++)
            task(run, k, run->work);
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
/* A tile of sums over time has TALL rows; WIDE is in vectors, BROAD in columns. Its rows are shared out as STRIPS. */
enum { TALL = 4, WIDE = SUMS / TALL, BROAD = VECTOR == 64 ? 6 : 3, STRIPS = 16 };
#if defined(__clang__)
#define FUSED  /* a b + c in one instruction */
#else
#define FUSED __attribute__((optimize("fp-contract=fast")))
#endif
#if defined(__x86_64__)
#define IN_REGISTER(x) __asm__("" : "+v"(x))  /* GCC would read it from memory for each product */
#else
#define IN_REGISTER(x)
#endif
"""

# For a batch that does not fill its last chunk
LAY_DOWN = """\
enum { PART_TYPE = VECTOR / sizeof(TYPE) };
typedef TYPE part_TYPE __attribute__((vector_size(VECTOR), aligned(sizeof(TYPE)), may_alias));

/* Lay the first `columns` columns of (rows, COLUMNS) down for sums; the last vector overlaps the one before. */
static inline void lay_down_TYPE(TYPE *restrict to, long line, const TYPE *from, long rows, long columns)
{
    for (long i = 0; i < rows; i++, to += line, from += COLUMNS)
        if (columns < PART_TYPE)
            for (long j = 0; j < columns; j++)
                to[j] = from[j];
        else
            for (long j = 0; j < columns; j += PART_TYPE) {
                const long k = j + PART_TYPE <= columns ? j : columns - PART_TYPE;
                *(part_TYPE *)(to + k) = *(const part_TYPE *)(from + k);
            }
}
"""

LOOK_UP = """\
/* z = P[:, index]: z (rows, width). Some rows at a time, column by column: entry by entry along a row, compilers gather
   by an instruction that takes twice as long. */
static void look_up_TYPE(TYPE *restrict z, const TYPE *P, long row, long column, const int64_t *index, long rows,
                         long width)
{
    enum { SOME = 16 };
    for (long first = 0; first < rows; first += SOME, z += SOME * width, P += SOME * row)
        for (long j = 0; j < width; j++) {
            const TYPE *from = P + index[j] * column;
            for (long i = 0; i < SOME && i < rows - first; i++)
                z[i * width + j] = from[i * row];
        }
}
"""

# Products with COLUMNS > 1 columns: some vectors side by side, perhaps a half one, and columns that are left over. The
# vectors of those lie across the rows of a panel, so they cost as much as they are.
BY_COLUMNS = """\
enum { REST_TYPE = VECTOR == 64 ? FILLED % (VECTOR / 2 / sizeof(TYPE)) : 0,
       LEFT_TYPE = REST_TYPE <= 4 && REST_TYPE < FILLED ? REST_TYPE : 0,
       SIDE_TYPE = LEFT_TYPE ? FILLED - LEFT_TYPE : COLUMNS,
       BYTES_TYPE = SIDE_TYPE * sizeof(TYPE) < VECTOR ? SIDE_TYPE * sizeof(TYPE) : VECTOR,
       LANES_TYPE = BYTES_TYPE / sizeof(TYPE),
       ACROSS_TYPE = SIDE_TYPE / LANES_TYPE, HALF_TYPE = SIDE_TYPE % LANES_TYPE != 0,
       PANEL_TYPE = LEFT_TYPE ? 8 : SUMS / ACROSS_TYPE > 1 ? SUMS / ACROSS_TYPE : 1 };
typedef TYPE vector_TYPE __attribute__((vector_size(BYTES_TYPE), aligned(sizeof(TYPE)), may_alias));
typedef TYPE half_TYPE __attribute__((vector_size(BYTES_TYPE / 2), aligned(sizeof(TYPE)), may_alias));
typedef TYPE rows_TYPE __attribute__((vector_size(8 * sizeof(TYPE)), aligned(sizeof(TYPE)), may_alias));

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

/* z = W u: W (rows, inner) in panels, u (inner, COLUMNS), z (rows, COLUMNS); behind the columns left over, z is 0 */
static FUSED void product_TYPE(long rows, long inner, const TYPE *panels, const TYPE *u, TYPE *z)
{
    #pragma clang fp contract(fast)
    for (long first = 0; first < rows; first += PANEL_TYPE) {
        vector_TYPE sum[PANEL_TYPE][ACROSS_TYPE] = {0};
        half_TYPE half[PANEL_TYPE] = {0};
        rows_TYPE left[LEFT_TYPE + 1] = {0};
        for (long k = 0; k < inner; k++, panels += PANEL_TYPE) {
            const TYPE *x = u + k * COLUMNS;
            #pragma GCC unroll 16
            for (int r = 0; r < PANEL_TYPE; r++) {
                #pragma GCC unroll 16
                for (int j = 0; j < ACROSS_TYPE; j++)
                    sum[r][j] += panels[r] * *(const vector_TYPE *)(x + j * LANES_TYPE);
                if (HALF_TYPE)
                    half[r] += panels[r] * *(const half_TYPE *)(x + ACROSS_TYPE * LANES_TYPE);
            }
            #pragma GCC unroll 16
            for (int j = 0; j < LEFT_TYPE; j++)
                left[j] += x[SIDE_TYPE + j] * *(const rows_TYPE *)panels;
        }
        #pragma GCC unroll 16
        for (int r = 0; r < PANEL_TYPE; r++)
            if (r < rows - first) {
                TYPE *to = z + (first + r) * COLUMNS;
                #pragma GCC unroll 16
                for (int j = 0; j < ACROSS_TYPE; j++)
                    *(vector_TYPE *)(to + j * LANES_TYPE) = sum[r][j];
                if (HALF_TYPE)
                    *(half_TYPE *)(to + ACROSS_TYPE * LANES_TYPE) = half[r];
                for (int j = SIDE_TYPE; j < COLUMNS; j++)
                    to[j] = j < FILLED ? left[j - SIDE_TYPE][r] : 0;
            }
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

STRIP = """\
/* The rows of a strip: whole tiles. */
static inline long strip_start(long strip, long rows)
{
    const long tiles = (rows + TALL - 1) / TALL, start = tiles * strip / STRIPS * TALL;
    return start < rows ? start : rows;
}
"""

# Sums over time of rows (rows, n); one row begins `line` entries after the other, with room for a vector more
SUMS_OVER_COLUMNS = """\
enum { WHOLE_TYPE = VECTOR / sizeof(TYPE) };
typedef TYPE whole_TYPE __attribute__((vector_size(VECTOR), aligned(sizeof(TYPE)), may_alias));

typedef INTEGER_TYPE mask_TYPE __attribute__((vector_size(VECTOR), aligned(sizeof(TYPE)), may_alias));

/* sums = L Rᵀ for TALL rows of L and BROAD rows of R */
static inline FUSED __attribute__((always_inline)) void tile_TYPE(
    const TYPE *const left[TALL], const TYPE *const right[BROAD], long n, TYPE *sums)
{
    #pragma clang fp contract(fast)
    enum { TILE = TALL * BROAD };
    whole_TYPE sum[TALL][BROAD] = {0};
    long k = 0;
    for (; k + WHOLE_TYPE <= n; k += WHOLE_TYPE) {
        whole_TYPE y[BROAD];
        #pragma GCC unroll 8
        for (int j = 0; j < BROAD; j++) {
            y[j] = *(const whole_TYPE *)(right[j] + k);
            IN_REGISTER(y[j]);
        }
        #pragma GCC unroll 8
        for (int i = 0; i < TALL; i++) {
            whole_TYPE x = *(const whole_TYPE *)(left[i] + k);
            IN_REGISTER(x);
            #pragma GCC unroll 8
            for (int j = 0; j < BROAD; j++)
                sum[i][j] += x * y[j];
        }
    }
    if (k < n) {  /* lanes behind the end count as 0 */
        whole_TYPE lane;
        for (int i = 0; i < WHOLE_TYPE; i++)
            lane[i] = i;
        const mask_TYPE within = lane < (TYPE)(n - k);
        #pragma GCC unroll 8
        for (int i = 0; i < TALL; i++) {
            const mask_TYPE x = *(const mask_TYPE *)(left[i] + k) & within;
            #pragma GCC unroll 8
            for (int j = 0; j < BROAD; j++) {
                const mask_TYPE y = *(const mask_TYPE *)(right[j] + k) & within;
                sum[i][j] += (whole_TYPE)x * (whole_TYPE)y;
            }
        }
    }
    TYPE lanes[2][TILE * WHOLE_TYPE];
    #pragma GCC unroll 8
    for (int i = 0; i < TALL; i++)
        #pragma GCC unroll 8
        for (int j = 0; j < BROAD; j++)
            *(whole_TYPE *)(lanes[0] + (i * BROAD + j) * WHOLE_TYPE) = sum[i][j];
    int now = 0;
    #pragma GCC unroll 8
    for (int left_over = TILE * WHOLE_TYPE / 2; left_over >= TILE; left_over /= 2, now = !now)
        #pragma GCC unroll 16
        for (int i = 0; i < left_over; i++)
            lanes[!now][i] = lanes[now][2 * i] + lanes[now][2 * i + 1];
    for (int i = 0; i < TILE; i++)
        sums[i] = lanes[now][i];
}

/* Fast where height and width are constants. */
static inline __attribute__((always_inline)) void add_tile_TYPE(long height, long width, long columns,
                                                                const TYPE *sums, TYPE *dW)
{
    for (int i = 0; i < TALL && i < height; i++)
        for (int j = 0; j < BROAD && j < width; j++)
            dW[i * columns + j] += sums[i * BROAD + j];
}

/* dW += L Rᵀ in a strip: L (rows, n), R (columns, n). Tiles at the edge repeat the last row. */
static void add_product_TYPE(long strip, long rows, long columns, long n, long line, const TYPE *L, const TYPE *R,
                             TYPE *dW)
{
    enum { CACHED = 1 << 18 };  /* bytes of R that are read again and again */
    const long cached = CACHED / (n * sizeof(TYPE)) / BROAD * BROAD, some = cached < BROAD ? BROAD : cached;
    const long start = strip_start(strip, rows), stop = strip_start(strip + 1, rows);
    for (long first = 0; first < columns; first += some)
        for (long i = start; i < stop; i += TALL)
            for (long j = first; j < columns && j < first + some; j += BROAD) {
                const TYPE *left[TALL], *right[BROAD];
                TYPE sums[TALL * BROAD];
                for (int k = 0; k < TALL; k++)
                    left[k] = L + (i + k < rows ? i + k : rows - 1) * line;
                for (int k = 0; k < BROAD; k++)
                    right[k] = R + (j + k < columns ? j + k : columns - 1) * line;
                tile_TYPE(left, right, n, sums);
                if (i + TALL <= stop && j + BROAD <= columns)
                    add_tile_TYPE(TALL, BROAD, columns, sums, dW + i * columns + j);
                else
                    add_tile_TYPE(stop - i, columns - j, columns, sums, dW + i * columns + j);
            }
}

/* db += the sums of the rows of L */
static void add_rows_TYPE(long strip, long rows, long n, long line, const TYPE *L, TYPE *db)
{
    for (long i = strip_start(strip, rows); i < strip_start(strip + 1, rows); i++) {
        TYPE sum = 0;
        #pragma omp simd reduction(+:sum)
        for (long k = 0; k < n; k++)
            sum += L[i * line + k];
        db[i] += sum;
    }
}
"""

# Sums over time of columns, one a step: (n, rows)
SUMS_OVER_STEPS = """\
enum { WHOLE_TYPE = VECTOR / sizeof(TYPE) };
typedef TYPE whole_TYPE __attribute__((vector_size(VECTOR), aligned(sizeof(TYPE)), may_alias));

static inline FUSED __attribute__((always_inline)) void outer_TYPE(
    const int across, long rows, long columns, long n, long height, long width, const TYPE *L, const TYPE *R, TYPE *dW)
{
    #pragma clang fp contract(fast)
    whole_TYPE sum[TALL][WIDE] = {0};
    for (long k = 0; k < n; k++, L += rows, R += columns) {
        whole_TYPE y[WIDE];
        #pragma GCC unroll 8
        for (int j = 0; j < across; j++) {
            y[j] = *(const whole_TYPE *)(R + j * WHOLE_TYPE);
            IN_REGISTER(y[j]);
        }
        #pragma GCC unroll 8
        for (int i = 0; i < TALL; i++)
            #pragma GCC unroll 8
            for (int j = 0; j < across; j++)
                sum[i][j] += L[i] * y[j];
    }
    #pragma GCC unroll 8
    for (int i = 0; i < TALL && i < height; i++, dW += columns) {
        const TYPE *lanes = (const TYPE *)sum[i];
        #pragma GCC unroll 8
        for (int j = 0; j < across - 1; j++)
            *(whole_TYPE *)(dW + j * WHOLE_TYPE) += sum[i][j];
        for (long j = (across - 1) * WHOLE_TYPE; j < width; j++)
            dW[j] += lanes[j];
    }
}

/* dW += Lᵀ R in a strip: L (n, rows), R (n, columns). Up to WIDE vectors are read behind their ends. */
static FUSED void add_product_TYPE(long strip, long rows, long columns, long n, const TYPE *L, const TYPE *R, TYPE *dW)
{
    #pragma clang fp contract(fast)
    const long start = strip_start(strip, rows), stop = strip_start(strip + 1, rows);
    for (long j = 0; j < columns; j += WIDE * WHOLE_TYPE) {
        const long left = columns - j, width = left < WIDE * WHOLE_TYPE ? left : WIDE * WHOLE_TYPE;
        for (long i = start; i < stop; i += TALL)
            switch ((width + WHOLE_TYPE - 1) / WHOLE_TYPE) {
            case 1: outer_TYPE(1, rows, columns, n, stop - i, width, L + i, R + j, dW + i * columns + j); break;
            case 2: outer_TYPE(2, rows, columns, n, stop - i, width, L + i, R + j, dW + i * columns + j); break;
            case 3: outer_TYPE(WIDE - 1, rows, columns, n, stop - i, width, L + i, R + j, dW + i * columns + j); break;
            default: outer_TYPE(WIDE, rows, columns, n, stop - i, width, L + i, R + j, dW + i * columns + j);
            }
    }
}

/* db += the sum of the rows of L (n, rows) */
static void add_rows_TYPE(long strip, long rows, long n, const TYPE *L, TYPE *db)
{
    for (long k = 0; k < n; k++)
        for (long i = strip_start(strip, rows); i < strip_start(strip + 1, rows); i++)
            db[i] += L[k * rows + i];
}
"""

# Columns added at an index, as a sum over time
ADDED_AT_OVER_COLUMNS = """\
/* dP[:, index] += L in a strip: L (rows, n), dP (rows, columns). Four rows at a time do not wait for each other. */
static void add_at_TYPE(long strip, long rows, long columns, long n, long line, const TYPE *L, const int64_t *index,
                        TYPE *dP)
{
    const long stop = strip_start(strip + 1, rows);
    long i = strip_start(strip, rows);
    for (; i + 4 <= stop; i += 4) {
        const TYPE *from = L + i * line;
        TYPE *to = dP + i * columns;
        for (long k = 0; k < n; k++) {
            TYPE *at = to + index[k];
            const TYPE a = at[0] + from[k], b = at[columns] + from[line + k];
            const TYPE c = at[2 * columns] + from[2 * line + k], d = at[3 * columns] + from[3 * line + k];
            at[0] = a, at[columns] = b, at[2 * columns] = c, at[3 * columns] = d;
        }
    }
    for (; i < stop; i++)
        for (long k = 0; k < n; k++)
            dP[i * columns + index[k]] += L[i * line + k];
}
"""

ADDED_AT_OVER_STEPS = """\
/* dP[:, index] += Lᵀ in a strip: L (n, rows), dP (rows, columns) */
static void add_at_TYPE(long strip, long rows, long columns, long n, const TYPE *L, const int64_t *index, TYPE *dP)
{
    for (long k = 0; k < n; k++)
        for (long i = strip_start(strip, rows); i < strip_start(strip + 1, rows); i++)
            dP[i * columns + index[k]] += L[k * rows + i];
}
"""

BEHIND = 256  # bytes that may be read behind rows


def for_type(text: str, c_type: str) -> str:
    integer = "int32_t" if c_type == "float" else "int64_t"
    return text.replace("INTEGER_TYPE", integer).replace("TYPE", c_type)


def taken(count: int) -> int:
    """The bytes that `take` takes for an array of `count` bytes."""
    return (count + 4095) // 4096 * 4096 + 320


def panel_entries(rows: int, inner: int) -> int:
    """The entries that the panels of a matrix take at most."""
    return (rows + rows // 8 + 256) * inner
