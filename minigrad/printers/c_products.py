"""The part of a C file that is the same for every cell: memory, copies in and out, and matrix products.

A product W u keeps its sums in registers: for a panel of rows of W, and all columns of a chunk, one row of u is read
for each k and multiplied with the panel's column. W is packed first, panel by panel, in the order in which it is read.
With few columns, less than a vector, the roles change: a vector is a panel's column, multiplied with each entry of the
row of u, and the sums are turned at the end. The vectors are GCC's and Clang's, for any processor.

A weight's gradient is a sum over time of products, dW += L Rᵀ, over all columns of a block of steps. For each of them
one entry of L is multiplied with vectors across rows of R, so a tile of dW is summed in registers; strips of dW are
shared out to threads.
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

TURN = """\
typedef INTEGER_TYPE four_TYPE __attribute__((vector_size(4 * sizeof(TYPE)), aligned(sizeof(TYPE)), may_alias));
#if defined(__clang__)
#define MIXED(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define MIXED(x, y, ...) __builtin_shuffle(x, y, (__typeof__(x)){__VA_ARGS__})
#endif

/* to[j, i] = from[i, j] for i < rows and j < columns, 4 x 4 entries at a time */
static void turn_TYPE(TYPE *restrict to, long to_row, const TYPE *from, long from_row, long rows, long columns)
{
    enum { LINE = 16 };
    const long fours = rows / 4 * 4, across = columns / 4 * 4;
    for (long first = 0; first < fours; first += LINE)
        for (long j = 0; j < across; j += 4)
            for (long i = first; i < first + LINE && i < fours; i += 4) {
                const TYPE *x = from + i * from_row + j;
                TYPE *y = to + j * to_row + i;
                const four_TYPE a = *(const four_TYPE *)x, b = *(const four_TYPE *)(x + from_row);
                const four_TYPE c = *(const four_TYPE *)(x + 2 * from_row);
                const four_TYPE d = *(const four_TYPE *)(x + 3 * from_row);
                const four_TYPE ab = MIXED(a, b, 0, 4, 1, 5), AB = MIXED(a, b, 2, 6, 3, 7);
                const four_TYPE cd = MIXED(c, d, 0, 4, 1, 5), CD = MIXED(c, d, 2, 6, 3, 7);
                *(four_TYPE *)y = MIXED(ab, cd, 0, 1, 4, 5);
                *(four_TYPE *)(y + to_row) = MIXED(ab, cd, 2, 3, 6, 7);
                *(four_TYPE *)(y + 2 * to_row) = MIXED(AB, CD, 0, 1, 4, 5);
                *(four_TYPE *)(y + 3 * to_row) = MIXED(AB, CD, 2, 3, 6, 7);
            }
    for (long j = across; j < columns; j++)
        for (long i = 0; i < fours; i++)
            to[j * to_row + i] = from[i * from_row + j];
    for (long i = fours; i < rows; i++)
        for (long j = 0; j < columns; j++)
            to[j * to_row + i] = from[i * from_row + j];
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
    else {
        if (row == 1)
            turn_TYPE(to, width, from, across, columns, rows);
        for (long j = row == 1 ? columns : 0; j < width; j++)
            for (long i = 0; i < rows; i++)
                to[i * width + j] = from[i * row + (j < columns ? j : columns - 1) * across];
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
    else if (row == 1)
        turn_TYPE(to, across, from, width, rows, columns);
    else
        for (long i = 0; i < rows; i++)
            for (long j = 0; j < columns; j++)
                to[i * row + j * across] = from[i * width + j];
}
"""

VECTORS = """\
#if defined(__AVX512F__)
enum { VECTOR = 64, SUMS = 16, WIDE = 4 };
#elif defined(__AVX__)
enum { VECTOR = 32, SUMS = 8, WIDE = 2 };
#elif defined(__aarch64__)
enum { VECTOR = 16, SUMS = 8, WIDE = 4 };
#else
enum { VECTOR = 16, SUMS = 8, WIDE = 2 };
#endif
/* A tile of sums over time has TALL rows and WIDE vectors. Its rows are shared out as STRIPS. */
enum { TALL = 6, STRIPS = 16 };
#if defined(__clang__)
#define FUSED  /* a b + c in one instruction */
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define FUSED __attribute__((optimize("fp-contract=fast")))
#define UNROLLED _Pragma("GCC unroll 16")
#endif
#if defined(__x86_64__)
#define IN_REGISTER(x) __asm__("" : "+v"(x))  /* GCC would read it from memory for each product */
#else
#define IN_REGISTER(x)
#endif
"""

PACK = """\
/* Copy W (rows, inner) into panels of `height` rows, column by column. */
static inline __attribute__((always_inline)) void pack_panels_TYPE(
    const TYPE *W, long row, long column, long rows, long inner, const long height, TYPE *restrict panels)
{
    for (long first = 0; first < rows; first += height, panels += height * inner, W += height * row) {
        const long own = rows - first < height ? rows - first : height;
        if (own < height)
            memset(panels, 0, height * inner * sizeof(TYPE));
        if (row == 1 && own == height)
            for (long k = 0; k < inner; k++)
                memcpy(panels + k * height, W + k * column, height * sizeof(TYPE));
        else if (column == 1)
            turn_TYPE(panels, height, W, row, own, inner);
        else
            for (long r = 0; r < own; r++)
                for (long k = 0; k < inner; k++)
                    panels[k * height + r] = W[r * row + k * column];
    }
}
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

# Products with more columns: some vectors side by side, and columns that are left over. The vectors of up to four lie
# across the rows of a panel, so they cost as much as they are; for more, a last vector, perhaps a half one, ends with
# them and overlaps the one before.
BY_COLUMNS = """\
enum { REST_TYPE = VECTOR == 64 ? FILLED % (VECTOR / sizeof(TYPE)) : 0,
       LEFT_TYPE = REST_TYPE <= 4 && REST_TYPE < FILLED ? REST_TYPE : 0,
       SIDE_TYPE = LEFT_TYPE ? FILLED - LEFT_TYPE : COLUMNS,
       BYTES_TYPE = SIDE_TYPE * sizeof(TYPE) < VECTOR ? SIDE_TYPE * sizeof(TYPE) : VECTOR,
       LANES_TYPE = BYTES_TYPE / sizeof(TYPE),
       ACROSS_TYPE = SIDE_TYPE / LANES_TYPE, HALF_TYPE = SIDE_TYPE % LANES_TYPE,
       TAIL_TYPE = HALF_TYPE > LANES_TYPE / 2 ? LANES_TYPE : LANES_TYPE / 2,
       PANEL_TYPE = LEFT_TYPE ? 8 : HALF_TYPE && SUMS / ACROSS_TYPE > 8 ? 8 :
                    SUMS / ACROSS_TYPE > 1 ? SUMS / ACROSS_TYPE : 1 };
typedef TYPE vector_TYPE __attribute__((vector_size(BYTES_TYPE), aligned(sizeof(TYPE)), may_alias));
typedef TYPE half_TYPE __attribute__((vector_size(TAIL_TYPE * sizeof(TYPE)), aligned(sizeof(TYPE)), may_alias));
typedef TYPE rows_TYPE __attribute__((vector_size(8 * sizeof(TYPE)), aligned(sizeof(TYPE)), may_alias));

static void pack_TYPE(const TYPE *W, long row, long column, long rows, long inner, TYPE *panels)
{
    pack_panels_TYPE(W, row, column, rows, inner, PANEL_TYPE, panels);
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
            UNROLLED
            for (int r = 0; r < PANEL_TYPE; r++) {
                UNROLLED
                for (int j = 0; j < ACROSS_TYPE; j++)
                    sum[r][j] += panels[r] * *(const vector_TYPE *)(x + j * LANES_TYPE);
                if (HALF_TYPE)
                    half[r] += panels[r] * *(const half_TYPE *)(x + SIDE_TYPE - TAIL_TYPE);
            }
            UNROLLED
            for (int j = 0; j < LEFT_TYPE; j++)
                left[j] += x[SIDE_TYPE + j] * *(const rows_TYPE *)panels;
        }
        UNROLLED
        for (int r = 0; r < PANEL_TYPE; r++)
            if (r < rows - first) {
                TYPE *to = z + (first + r) * COLUMNS;
                UNROLLED
                for (int j = 0; j < ACROSS_TYPE; j++)
                    *(vector_TYPE *)(to + j * LANES_TYPE) = sum[r][j];
                if (HALF_TYPE)
                    *(half_TYPE *)(to + SIDE_TYPE - TAIL_TYPE) = half[r];
                for (int j = SIDE_TYPE; j < COLUMNS; j++)
                    to[j] = j < FILLED ? left[j - SIDE_TYPE][r] : 0;
            }
    }
}
"""

PAIRS = """\
/* The indices that shuffle two vectors together from lane i on: i, i + lanes, i + 1, … */
#define PAIRS_1(i, lanes) i, i + lanes
#define PAIRS_2(i, lanes) PAIRS_1(i, lanes), PAIRS_1(i + 1, lanes)
#define PAIRS_4(i, lanes) PAIRS_2(i, lanes), PAIRS_2(i + 2, lanes)
#define PAIRS_8(i, lanes) PAIRS_4(i, lanes), PAIRS_4(i + 4, lanes)
#if defined(__AVX512F__)
#define PAIRS_float(i) PAIRS_8(i, 16)
#define PAIRS_double(i) PAIRS_4(i, 8)
#elif defined(__AVX__)
#define PAIRS_float(i) PAIRS_4(i, 8)
#define PAIRS_double(i) PAIRS_2(i, 4)
#else
#define PAIRS_float(i) PAIRS_2(i, 4)
#define PAIRS_double(i) PAIRS_1(i, 2)
#endif
"""

# Products with few columns: 1, 2, 4 or 8
BY_ROWS = """\
enum { LANES_TYPE = VECTOR / sizeof(TYPE), WIDEST_TYPE = FILLED == 1 ? 8 : (SUMS + 1) / FILLED };
typedef TYPE vector_TYPE __attribute__((vector_size(VECTOR), aligned(sizeof(TYPE)), may_alias));
typedef INTEGER_TYPE lanes_TYPE __attribute__((vector_size(VECTOR), aligned(sizeof(TYPE)), may_alias));

/* Vectors of a panel: the rows in as few panels of equal height as the widest allows. */
static inline long across_TYPE(long rows)
{
    long vectors = (rows + LANES_TYPE - 1) / LANES_TYPE, panels = (vectors + WIDEST_TYPE - 1) / WIDEST_TYPE;
    return (vectors + panels - 1) / panels;
}

static void pack_TYPE(const TYPE *W, long row, long column, long rows, long inner, TYPE *panels)
{
    pack_panels_TYPE(W, row, column, rows, inner, across_TYPE(rows) * LANES_TYPE, panels);
}

static inline FUSED __attribute__((always_inline)) void panel_TYPE(const int across, long rows, long inner,
                                                                   const TYPE *panel, const TYPE *u, TYPE *z)
{
    #pragma clang fp contract(fast)
    vector_TYPE sum[WIDEST_TYPE][COLUMNS] = {0};
    for (long k = 0; k < inner; k++, panel += across * LANES_TYPE, u += COLUMNS)
        UNROLLED
        for (int j = 0; j < FILLED; j++)
            UNROLLED
            for (int v = 0; v < across; v++)
                sum[v][j] += u[j] * *(const vector_TYPE *)(panel + v * LANES_TYPE);
    UNROLLED
    for (int v = 0; v < across; v++) {
        UNROLLED
        for (int n = COLUMNS; n > 1; n /= 2) {  /* turn: both halves are shuffled together as a pack of cards */
            vector_TYPE *x = sum[v], mixed[COLUMNS];
            UNROLLED
            for (int j = 0; j < COLUMNS / 2; j++) {
                const lanes_TYPE a = (lanes_TYPE)x[j], b = (lanes_TYPE)x[j + COLUMNS / 2];
                mixed[2 * j] = (vector_TYPE)MIXED(a, b, PAIRS_TYPE(0));
                mixed[2 * j + 1] = (vector_TYPE)MIXED(a, b, PAIRS_TYPE(LANES_TYPE / 2));
            }
            UNROLLED
            for (int j = 0; j < COLUMNS; j++)
                x[j] = mixed[j];
        }
        if (rows >= (v + 1) * LANES_TYPE)
            UNROLLED
            for (int j = 0; j < COLUMNS; j++)
                *(vector_TYPE *)(z + (v * COLUMNS + j) * LANES_TYPE) = sum[v][j];
        else if (rows > v * LANES_TYPE)
            memcpy(z + v * COLUMNS * LANES_TYPE, sum[v], (rows - v * LANES_TYPE) * COLUMNS * sizeof(TYPE));
    }
}

/* z = W u: W (rows, inner) in panels, u (inner, COLUMNS), z (rows, COLUMNS) */
static FUSED void product_TYPE(long rows, long inner, const TYPE *panels, const TYPE *u, TYPE *z)
{
    const long across = across_TYPE(rows), height = across * LANES_TYPE;
    #define CASE(vectors) \\
        case vectors: \\
            if (vectors <= WIDEST_TYPE) \\
                panel_TYPE(vectors, rows - first, inner, panels, u, z + first * COLUMNS); \\
            break
    for (long first = 0; first < rows; first += height, panels += height * inner)
        switch (across) {
        CASE(1); CASE(2); CASE(3); CASE(4); CASE(5); CASE(6); CASE(7); CASE(8);
        }
    #undef CASE
}
"""

STRIP = """\
/* The rows of a strip: whole tiles. */
static inline long strip_start(long strip, long rows)
{
    const long tiles = (rows + TALL - 1) / TALL, start = tiles * strip / STRIPS * TALL;
    return start < rows ? start : rows;
}

/* Set a strip of sums to zero. */
static void clear(long strip, long rows, long row_bytes, void *sums)
{
    const long start = strip_start(strip, rows), stop = strip_start(strip + 1, rows);
    memset((char *)sums + start * row_bytes, 0, (stop - start) * row_bytes);
}
"""

PRODUCTS_OVER_TIME = """\
enum { WHOLE_TYPE = VECTOR / sizeof(TYPE) };
typedef TYPE whole_TYPE __attribute__((vector_size(VECTOR), aligned(sizeof(TYPE)), may_alias));
typedef TYPE halved_TYPE __attribute__((vector_size(VECTOR / 2), aligned(sizeof(TYPE)), may_alias));

/* A tile of dW += L Rᵀ: `across` vectors of R, and half a one. Up to half a vector is read behind R's rows. */
static inline FUSED __attribute__((always_inline)) void tile_TYPE(
    const int across, const int half, long height, long width, long columns, long n, const TYPE *const L[TALL],
    long step, const TYPE *R, TYPE *dW)
{
    #pragma clang fp contract(fast)
    whole_TYPE sum[TALL][WIDE] = {0};
    halved_TYPE rest[TALL] = {0};
    for (long k = 0; k < n; k++, R += columns) {
        whole_TYPE y[WIDE];
        halved_TYPE z = {0};
        UNROLLED
        for (int j = 0; j < across; j++) {
            y[j] = *(const whole_TYPE *)(R + j * WHOLE_TYPE);
            IN_REGISTER(y[j]);
        }
        if (half) {
            z = *(const halved_TYPE *)(R + across * WHOLE_TYPE);
            if (VECTOR > 16)  /* Clang holds no half of the smallest vectors */
                IN_REGISTER(z);
        }
        UNROLLED
        for (int i = 0; i < TALL; i++) {
            UNROLLED
            for (int j = 0; j < across; j++)
                sum[i][j] += L[i][k * step] * y[j];
            if (half)
                rest[i] += L[i][k * step] * z;
        }
    }
    UNROLLED
    for (int i = 0; i < TALL; i++, dW += columns)
        if (i < height) {
            TYPE lanes[(WIDE + 1) * WHOLE_TYPE];
            UNROLLED
            for (int j = 0; j < across; j++)
                *(whole_TYPE *)(lanes + j * WHOLE_TYPE) = sum[i][j];
            *(halved_TYPE *)(lanes + across * WHOLE_TYPE) = rest[i];
            for (long j = 0; j < width; j++)
                dW[j] += lanes[j];
        }
}

static inline FUSED __attribute__((always_inline)) void tiles_TYPE(
    const int across, const int half, long strip, long j, long width, long rows, long columns, long n, const TYPE *L,
    long row, long step, const TYPE *R, TYPE *dW)
{
    const long stop = strip_start(strip + 1, rows);
    for (long i = strip_start(strip, rows); i < stop; i += TALL) {
        const TYPE *of[TALL];  /* tiles at the edge repeat the last row */
        for (int k = 0; k < TALL; k++)
            of[k] = L + (i + k < rows ? i + k : rows - 1) * row;
        tile_TYPE(across, half, stop - i, width, columns, n, of, step, R + j, dW + i * columns + j);
    }
}

/* dW += L Rᵀ in a strip, over n columns. L: the entry of row i in column k is L[i * row + k * step], R: (n, columns).
   The number of columns is a constant, so only tiles of two widths remain. */
static inline FUSED __attribute__((always_inline)) void add_product_TYPE(
    long strip, long rows, const long columns, long n, const TYPE *L, long row, long step, const TYPE *R, TYPE *dW)
{
    enum { BROAD = WIDE * WHOLE_TYPE };
    const long whole = columns / BROAD * BROAD, rest = columns - whole;
    for (long j = 0; j < whole; j += BROAD)
        tiles_TYPE(WIDE, 0, strip, j, BROAD, rows, columns, n, L, row, step, R, dW);
    #define REST(halves) \\
        case halves: \\
            if (halves <= 2 * WIDE) \\
                tiles_TYPE(halves / 2, halves % 2, strip, whole, rest, rows, columns, n, L, row, step, R, dW); \\
            break
    switch ((2 * rest + WHOLE_TYPE - 1) / WHOLE_TYPE) {
    REST(1); REST(2); REST(3); REST(4); REST(5); REST(6); REST(7); REST(8);
    }
    #undef REST
}
"""

# Sums of rows (rows, n); one row begins `line` entries after the other
SUMS_OVER_COLUMNS = """\
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

# Sums of columns, one a step: (n, rows)
SUMS_OVER_STEPS = """\
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

# {(how a gradient is summed over time, whether the rows are lines): the function}
OVER_TIME = {("product", False): PRODUCTS_OVER_TIME, ("product", True): PRODUCTS_OVER_TIME,
             ("sum", False): SUMS_OVER_STEPS, ("sum", True): SUMS_OVER_COLUMNS,
             ("at", False): ADDED_AT_OVER_STEPS, ("at", True): ADDED_AT_OVER_COLUMNS}

BEHIND = 256  # bytes that may be read behind rows


def for_type(text: str, c_type: str) -> str:
    integer = {"float": "int32_t", "int32_t": "int32_t", "bool": "int8_t"}.get(c_type, "int64_t")
    return text.replace("INTEGER_TYPE", integer).replace("TYPE", c_type)


def taken(count: int) -> int:
    """The bytes that `take` takes for an array of `count` bytes."""
    return (count + 4095) // 4096 * 4096 + 320


def panel_entries(rows: int, inner: int) -> int:
    """The entries that the panels of a matrix take at most."""
    return (rows + rows // 8 + 256) * inner
