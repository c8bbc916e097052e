/* Products of a model's weights in 4 or 8 bits, an encoder's attention, and the whole step of a decoder for one token.

   Weights are levels from 0 to 15 or 255: a weight is level * scale + least, where 32 weights of a row
   (a group) share scale and least. Compact ones have these in 8 bits, and for each row two factors of them.
   Activations are rounded to 8 bits, a group at a time, with a scale
   each, so that the products are those of integers. Everything else is float32.

   16 rows lie side by side (a block): of each, four levels after the other. So one instruction adds
   four products to each of 16 outputs, and a thread reads its weights from front to back. */

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define GROUP 32
#define BLOCK 16
#define TILE 4 /* rows of activations that share the loads of weights */
#define FEW 4  /* up to so many rows are rounded twice */
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    const uint8_t *levels;  /* [outputs / 16][inputs / 32][256 or 512 bytes] */
    const uint8_t *scales;  /* float16 [outputs / 16][inputs / 32][scale, with 4 bits least][16]; compact, for each
                               16 outputs: float [factor of scales, of leasts][16], then uint8 and int8 [inputs / 32][2][16] */
    const float *bias;      /* [outputs], or NULL */
    int32_t inputs, outputs, bits, compact;
} linear;

/* A row of activations, rounded: q * scale. `sum` is the sum of a group's q. */
typedef struct {
    int8_t *q;
    float *scale;
    int32_t *sum;
} rounded;

INLINE float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE uint32_t to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

INLINE float from_bfloat16(uint16_t value) { return from_bits((uint32_t)value << 16); }

INLINE uint16_t to_bfloat16(float value) {
    uint32_t bits = to_bits(value);
    return value != value ? 0x7fc0 : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* e to the power of x, to within 2 units in the last place; plain arithmetic, so that loops with it become
   vector instructions. A NaN stays one. */
INLINE float exponential(float x) {
    x = x < -87 ? -87 : x > 88 ? 88 : x;
    const float n = rintf(x * 1.44269504f), f = x - n * 0.693145752f - n * 1.42860677e-6f;
    float y = 1.98756915e-4f;
    y = y * f + 1.39819995e-3f;
    y = y * f + 8.33345190e-3f;
    y = y * f + 4.16657962e-2f;
    y = y * f + 1.66666654e-1f;
    y = y * f + 0.5f;
    return (y * f * f + f + 1) * from_bits((uint32_t)((int32_t)n + 127) << 23);
}

/* A NaN has greater bits than any number, so that a group with one gets the scale NaN. */
static void round_row(const float *x, int n, rounded row) {
    for (int g = 0; g < n / GROUP; g++, x += GROUP) {
        uint32_t most = 0;
        for (int i = 0; i < GROUP; i++) {
            uint32_t bits = to_bits(x[i]) & 0x7fffffff;
            most = bits > most ? bits : most;
        }
        float scale = from_bits(most) / 127, inverse = scale < 1e-35f ? 0 : 1 / scale;
        int32_t sum = 0;
        for (int i = 0; i < GROUP; i++) {
            int32_t q = (int32_t)rintf(x[i] * inverse);
            row.q[g * GROUP + i] = (int8_t)q;
            sum += row.q[g * GROUP + i];
        }
        row.scale[g] = scale;
        row.sum[g] = sum;
    }
}

INLINE int32_t four(const int8_t *q) {
    int32_t value;
    memcpy(&value, q, 4);
    return value;
}

/* The 16 rows of a block are one vector or two halves; with two halves WIDE is 1. `products` returns for each row
   of activations, and each of `wide` blocks, the sums of a group's levels * q, in 8 bits of (levels - 128) * q. */
#ifdef __AVX512VNNI__

#define LANES 16
#define PARTS 1
#define WIDE 2
typedef __m512 vector;
typedef __m512i integers;
INLINE vector zero(void) { return _mm512_setzero_ps(); }
INLINE vector all(float x) { return _mm512_set1_ps(x); }
INLINE vector get(const float *x) { return _mm512_loadu_ps(x); }
INLINE void put(float *x, vector y) { _mm512_storeu_ps(x, y); }
INLINE vector times(vector x, vector y) { return _mm512_mul_ps(x, y); }
INLINE vector plus_product(vector x, vector y, vector z) { return _mm512_fmadd_ps(x, y, z); }
INLINE vector greater(vector x, vector y) { return _mm512_max_ps(x, y); }
INLINE vector to_float(integers x) { return _mm512_cvtepi32_ps(x); }
INLINE vector from_float16(const uint8_t *x) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)x)); }
INLINE vector from_uint8(const uint8_t *x) {
    return to_float(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)x)));
}
INLINE vector from_int8(const uint8_t *x) {
    return to_float(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)x)));
}

INLINE void products(const uint8_t *levels, size_t next, const int wide, const rounded *rows, const int count, int g,
                     const int bits, integers dot[TILE][WIDE]) {
    integers odd[TILE][WIDE];
    for (int r = 0; r < count; r++)
        for (int b = 0; b < wide; b++) {
            dot[r][b] = _mm512_set1_epi32(bits == 8 ? -128 * rows[r].sum[g] : 0);
            odd[r][b] = _mm512_setzero_si512();
        }
    for (int i = 0; i < 4; i++) {
        integers first[WIDE], second[WIDE];
        for (int b = 0; b < wide; b++) {
            first[b] = _mm512_loadu_si512(levels + b * next + 64 * i);
            if (bits == 4) {
                const integers low = _mm512_set1_epi8(15);
                second[b] = _mm512_and_si512(_mm512_srli_epi16(first[b], 4), low);
                first[b] = _mm512_and_si512(first[b], low);
            } else {
                second[b] = _mm512_loadu_si512(levels + b * next + 64 * (i + 4));
            }
        }
        for (int r = 0; r < count; r++) {
            const int8_t *q = rows[r].q + g * GROUP + 4 * i;
            for (int b = 0; b < wide; b++) {
                dot[r][b] = _mm512_dpbusd_epi32(dot[r][b], first[b], _mm512_set1_epi32(four(q)));
                integers *rest = count * wide < 8 ? &odd[r][b] : &dot[r][b]; /* few sums: two of each, side by side */
                *rest = _mm512_dpbusd_epi32(*rest, second[b], _mm512_set1_epi32(four(q + 16)));
            }
        }
    }
    for (int r = 0; r < count; r++)
        for (int b = 0; b < wide; b++)
            if (count * wide < 8) dot[r][b] = _mm512_add_epi32(dot[r][b], odd[r][b]);
}

#else

#define LANES 8
#define PARTS 2
#define WIDE 1
typedef __m256 vector;
typedef __m256i integers;
INLINE vector zero(void) { return _mm256_setzero_ps(); }
INLINE vector all(float x) { return _mm256_set1_ps(x); }
INLINE vector get(const float *x) { return _mm256_loadu_ps(x); }
INLINE void put(float *x, vector y) { _mm256_storeu_ps(x, y); }
INLINE vector times(vector x, vector y) { return _mm256_mul_ps(x, y); }
INLINE vector plus_product(vector x, vector y, vector z) { return _mm256_fmadd_ps(x, y, z); }
INLINE vector greater(vector x, vector y) { return _mm256_max_ps(x, y); }
INLINE vector to_float(integers x) { return _mm256_cvtepi32_ps(x); }
INLINE vector from_float16(const uint8_t *x) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)x)); }
INLINE vector from_uint8(const uint8_t *x) {
    return to_float(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)x)));
}
INLINE vector from_int8(const uint8_t *x) {
    return to_float(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)x)));
}

/* The sums of a group's products with numbers from 0 to 15 stay below 8 * 2 * 15 * 127, so that 16 bits hold
   them. Numbers of 8 bits are split in two of 4. */
INLINE void products(const uint8_t *levels, size_t next, const int wide, const rounded *rows, const int count, int g,
                     const int bits, integers dot[TILE][WIDE]) {
    const integers low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    integers sum[TILE], sixteens[TILE];
    for (int r = 0; r < count; r++) sum[r] = sixteens[r] = _mm256_setzero_si256();
    for (int i = 0; i < (bits == 4 ? 4 : 8); i++) {
        const integers both = _mm256_loadu_si256((const integers *)(levels + 64 * i));
        const integers first = _mm256_and_si256(both, low);
        const integers second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        for (int r = 0; r < count; r++) {
            const int8_t *q = rows[r].q + g * GROUP + 4 * i;
            const integers of_first = _mm256_maddubs_epi16(first, _mm256_set1_epi32(four(q)));
            const integers of_second = _mm256_maddubs_epi16(second, _mm256_set1_epi32(four(bits == 4 ? q + 16 : q)));
            sum[r] = _mm256_add_epi16(sum[r], of_first);
            if (bits == 4) sum[r] = _mm256_add_epi16(sum[r], of_second);
            else sixteens[r] = _mm256_add_epi16(sixteens[r], of_second);
        }
    }
    for (int r = 0; r < count; r++) {
        dot[r][0] = _mm256_madd_epi16(sum[r], ones);
        if (bits == 8) {
            const integers high = _mm256_slli_epi32(_mm256_madd_epi16(sixteens[r], ones), 4);
            dot[r][0] = _mm256_add_epi32(dot[r][0], _mm256_add_epi32(high, _mm256_set1_epi32(-128 * rows[r].sum[g])));
        }
    }
}

#endif

/* out[r] = the outputs of `wide` blocks for rows[r] */
INLINE void blocks_of(const linear *w, int block, const int wide, const rounded *rows, const int count, const int bits,
                      const int compact, float *out) {
    const int groups = w->inputs / GROUP, bytes = GROUP * BLOCK * bits / 8;
    const int width = compact || bits == 8 ? 2 * BLOCK : 4 * BLOCK, before = compact ? 2 * BLOCK * sizeof(float) : 0;
    const size_t next = (size_t)groups * bytes, next_scales = before + (size_t)groups * width;
    const uint8_t *levels = w->levels + block * next, *scales = w->scales + block * next_scales;
    const uint8_t *factors = scales;
    vector total[PARTS][TILE][WIDE], low[PARTS][TILE][WIDE];
    for (int p = 0; p < PARTS; p++)
        for (int r = 0; r < count; r++)
            for (int b = 0; b < wide; b++) total[p][r][b] = low[p][r][b] = zero();
    scales += before;
    for (int g = 0; g < groups; g++, levels += bytes, scales += width) {
        for (int b = 0; b < wide; b++) {
            for (int ahead = 8192; ahead < 8192 + bytes; ahead += 64) {
                const char *there = (const char *)levels + b * next + ahead;
                if (count < TILE) _mm_prefetch(there, _MM_HINT_NTA); /* they are read once */
                else _mm_prefetch(there, _MM_HINT_T0);
            }
            _mm_prefetch((const char *)scales + b * next_scales + 2048, _MM_HINT_NTA);
        }
        for (int p = 0; p < PARTS; p++) {
            integers dot[TILE][WIDE];
            products(levels + 64 / PARTS * p, next, wide, rows, count, g, bits, dot);
            for (int b = 0; b < wide; b++) {
                const uint8_t *scaled = scales + b * next_scales + LANES * p * (compact ? 1 : 2);
                const vector scale = compact ? from_uint8(scaled) : from_float16(scaled);
                for (int r = 0; r < count; r++) {
                    const float by = rows[r].scale[g];
                    vector *sum = compact ? &low[p][r][b] : &total[p][r][b];
                    total[p][r][b] = plus_product(times(scale, all(by)), to_float(dot[r][b]), total[p][r][b]);
                    if (bits == 4) {
                        const uint8_t *lowest = scaled + width / 2;
                        const vector least = compact ? from_int8(lowest) : from_float16(lowest);
                        *sum = plus_product(least, all(by * (float)rows[r].sum[g]), *sum);
                    }
                }
            }
        }
    }
    for (int r = 0; r < count; r++)
        for (int b = 0; b < wide; b++)
            for (int p = 0; p < PARTS; p++) {
                vector sum = total[p][r][b];
                if (compact) {
                    const float *factor = (const float *)(factors + b * next_scales) + LANES * p;
                    sum = plus_product(sum, get(factor), times(low[p][r][b], get(factor + BLOCK)));
                }
                put(out + (r * wide + b) * BLOCK + LANES * p, sum);
            }
}

#define CASE(bits, compact, wide, count)                                                                              \
    case compact * 1000 + bits * 100 + wide * 10 + count:                                                             \
        blocks_of(w, block, wide, rows, count, bits, compact, out);                                                   \
        break;
#define CASES(bits, compact, wide)                                                                                    \
    CASE(bits, compact, wide, 1)                                                                                      \
    CASE(bits, compact, wide, 2)                                                                                      \
    CASE(bits, compact, wide, 3)                                                                                      \
    CASE(bits, compact, wide, 4)

static void blocks_of_rows(const linear *w, int block, int wide, const rounded *rows, int count, float *out) {
    switch (w->compact * 1000 + w->bits * 100 + wide * 10 + count) {
        CASES(4, 0, 1)
        CASES(4, 1, 1)
        CASES(8, 0, 1)
#if WIDE == 2
        CASES(4, 0, 2)
        CASES(4, 1, 2)
        CASES(8, 0, 2)
#endif
    }
}

/* Round a row twice: what the first time leaves over makes a second row, so that the sum of both rows' products is
   as exact as with 16 bits. With few rows the CPU waits for the weights, and has the time. */
static void round_twice(const float *x, int n, const rounded rows[2]) {
    float rest[n];
    round_row(x, n, rows[0]);
    for (int i = 0; i < n; i++) rest[i] = x[i] - rows[0].q[i] * rows[0].scale[i / GROUP];
    round_row(rest, n, rows[1]);
}

/* The outputs of `wide` blocks for `count` rows of activations, each of which was rounded `times` times. */
static void outputs_of(const linear *w, int block, int wide, const rounded *rows, int count, int times, float *out) {
    float parts[TILE * WIDE * BLOCK];
    blocks_of_rows(w, block, wide, rows, count * times, times == 1 ? out : parts);
    for (int r = 0; r < count; r++)
        for (int b = 0; b < wide; b++) {
            float *to = out + (r * wide + b) * BLOCK;
            if (times == 2) {
                const float *first = parts + (2 * r * wide + b) * BLOCK, *second = first + wide * BLOCK;
                for (int i = 0; i < BLOCK; i++) to[i] = first[i] + second[i];
            }
            if (w->bias)
                for (int i = 0; i < BLOCK; i++) to[i] += w->bias[(block + b) * BLOCK + i];
        }
}

int hftool_supported(void) {
#ifdef __AVX512VNNI__
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
}

INLINE void store(const float *x, int n, int bfloat16, void *to, int64_t at) {
    if (!bfloat16) memcpy((float *)to + at, x, n * sizeof(float));
    else
        for (int i = 0; i < n; i++) ((uint16_t *)to)[at + i] = to_bfloat16(x[i]);
}

INLINE rounded row_at(int8_t *q, float *scales, int64_t row, int64_t inputs) {
    float *scale = scales + 2 * row * (inputs / GROUP);
    return (rounded){q + row * inputs, scale, (int32_t *)(scale + inputs / GROUP)};
}

/* x * (1 + erf(x / sqrt(2))) / 2. Its erf is formula 7.1.26 of Abramowitz and Stegun, which is wrong by at most
   1.5e-7. */
INLINE float gelu_of(float x) {
    const float z = fabsf(x) * 0.70710678f, t = 1 / (1 + 0.3275911f * z);
    float y = 1.061405429f;
    y = y * t - 1.453152027f;
    y = y * t + 1.421413741f;
    y = y * t - 0.284496736f;
    y = y * t + 0.254829592f;
    const float rest = 0.5f * y * t * exponential(-z * z); /* (1 - erf(z)) / 2 */
    return x < 0 ? x * rest : x * (1 - rest);
}

/* out [rows, outputs] = x [rows, inputs] * weights, or with GELU in `form` GELU of that; both are float32, or with
   BFLOAT16 bfloat16. Returns 1 without memory. */
#define BFLOAT16 1
#define GELU 2
int hftool_product(const linear *w, const void *x, int32_t form, int64_t rows, void *out) {
    const int bfloat16 = form & BFLOAT16, gelu = form & GELU;
    const int64_t inputs = w->inputs, outputs = w->outputs;
    const int times = rows <= FEW ? 2 : 1, most = TILE / times;
    int8_t *q = malloc(rows * times * inputs + 1);
    float *scales = malloc(2 * rows * times * (inputs / GROUP) * sizeof(float) + 1);
    if (!q || !scales) {
        free(q);
        free(scales);
        return 1;
    }
#pragma omp parallel
    {
        float values[inputs];
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            const float *row = (const float *)x + r * inputs;
            if (bfloat16) {
                for (int64_t i = 0; i < inputs; i++)
                    values[i] = from_bfloat16(((const uint16_t *)x)[r * inputs + i]);
                row = values;
            }
            const rounded to[2] = {row_at(q, scales, r * times, inputs), row_at(q, scales, r * times + 1, inputs)};
            if (times == 2) round_twice(row, inputs, to);
            else round_row(row, inputs, to[0]);
        }
        /* A few hundred rows stay in the cache while all blocks pass over them. */
        for (int64_t begin = 0; begin < rows; begin += 256) {
            const int64_t end = begin + 256 < rows ? begin + 256 : rows;
#pragma omp for schedule(static) nowait
            for (int64_t block = 0; block < outputs / BLOCK; block += WIDE) {
                const int wide = outputs / BLOCK - block < WIDE ? 1 : WIDE;
                for (int64_t r = begin; r < end; r += most) {
                    const int count = end - r < most ? (int)(end - r) : most;
                    rounded tile[TILE];
                    float found[TILE * WIDE * BLOCK];
                    for (int t = 0; t < count * times; t++) tile[t] = row_at(q, scales, r * times + t, inputs);
                    outputs_of(w, block, wide, tile, count, times, found);
                    for (int t = 0; t < count; t++)
                        for (int b = 0; b < wide; b++) {
                            float *row = found + (t * wide + b) * BLOCK;
                            if (gelu)
                                for (int i = 0; i < BLOCK; i++) row[i] = gelu_of(row[i]);
                            store(row, BLOCK, bfloat16, out, (r + t) * outputs + (block + b) * BLOCK);
                        }
                }
            }
        }
    }
    free(q);
    free(scales);
    return 0;
}

/* ---- the attention of an encoder ---- */

#define QUERIES 6 /* that share the loads of keys and values */
#define COLUMNS (2 * LANES)

typedef struct {
    const void *query, *keys, *values; /* a head's numbers follow each other, the heads of a token too */
    const uint8_t *mask;               /* [sequences][tokens], 0 for padding; or NULL */
    int64_t query_step, key_step;      /* from one token to the next */
    int32_t sequences, queries, tokens, heads, size, bfloat16;
} attention;

INLINE float at(const void *x, int bfloat16, int64_t i) {
    return bfloat16 ? from_bfloat16(((const uint16_t *)x)[i]) : ((const float *)x)[i];
}

/* out[r] = the sums over n of left[r][n] * right[n], for COLUMNS columns of `right`, whose rows are `step` apart;
   `first` (or NULL) is added. */
INLINE void sums_of(const float *left, int64_t left_step, const float *right, int64_t step, int n, const float *first,
                    float *out, int64_t out_step) {
    vector sum[QUERIES][2];
    for (int r = 0; r < QUERIES; r++)
        for (int c = 0; c < 2; c++) sum[r][c] = first ? get(first + c * LANES) : zero();
    for (int i = 0; i < n; i++, right += step) {
        const vector x = get(right), y = get(right + LANES);
        for (int r = 0; r < QUERIES; r++) {
            const vector by = all(left[r * left_step + i]);
            sum[r][0] = plus_product(by, x, sum[r][0]);
            sum[r][1] = plus_product(by, y, sum[r][1]);
        }
    }
    for (int r = 0; r < QUERIES; r++)
        for (int c = 0; c < 2; c++) put(out + r * out_step + c * LANES, sum[r][c]);
}

static void attend_sequence(const attention *a, int sequence, int head, float *memory, void *out) {
    const int tokens = a->tokens, size = a->size, bfloat16 = a->bfloat16, width = (tokens + COLUMNS - 1) / COLUMNS * COLUMNS;
    const float scaling = 1 / sqrtf((float)size);
    float *keys = memory, *values = keys + size * width, *masked = values + tokens * size, *scores = masked + width;
    float *query = scores + QUERIES * width, *found = query + QUERIES * size;
    const int64_t first_key = (int64_t)sequence * tokens * a->key_step + head * size;
    const int64_t first_query = (int64_t)sequence * a->queries * a->query_step + head * size;
    memset(keys, 0, size * width * sizeof(float));
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < size; i++) {
            keys[i * width + t] = at(a->keys, bfloat16, first_key + t * a->key_step + i);
            values[t * size + i] = at(a->values, bfloat16, first_key + t * a->key_step + i);
        }
    for (int t = 0; t < width; t++)
        masked[t] = t < tokens && (!a->mask || a->mask[(int64_t)sequence * tokens + t]) ? 0 : -INFINITY;
    for (int begin = 0; begin < a->queries; begin += QUERIES) {
        const int count = a->queries - begin < QUERIES ? a->queries - begin : QUERIES;
        float total[QUERIES];
        for (int r = 0; r < QUERIES; r++)
            for (int i = 0; i < size; i++) {
                const int64_t row = begin + (r < count ? r : 0);
                query[r * size + i] = scaling * at(a->query, bfloat16, first_query + row * a->query_step + i);
            }
        for (int t = 0; t < width; t += COLUMNS)
            sums_of(query, size, keys + t, width, size, masked + t, scores + t, width);
        for (int r = 0; r < count; r++) {
            float *row = scores + r * width, each[LANES], most = -INFINITY, sum = 0;
            vector greatest = get(row);
            for (int t = LANES; t < width; t += LANES) greatest = greater(greatest, get(row + t));
            put(each, greatest);
            for (int i = 0; i < LANES; i++) most = each[i] > most ? each[i] : most;
            const int nothing = most == -INFINITY; /* all is padding, whose attention is 0 as torch's; or all is NaN */
            for (int t = 0; t < width; t++) sum += row[t] = exponential(row[t] - (nothing ? 0 : most));
            total[r] = sum + nothing;
        }
        for (int i = 0; i < size; i += COLUMNS)
            sums_of(scores, width, values + i, size, tokens, NULL, found + i, size);
        for (int r = 0; r < count; r++) {
            for (int i = 0; i < size; i++) found[r * size + i] /= total[r];
            store(found + r * size, size, bfloat16, out, (((int64_t)sequence * a->queries + begin + r) * a->heads + head) * size);
        }
    }
}

/* out [sequences, queries, heads, size] = softmax(query * keys / sqrt(size)) * values, computed in float32. Returns 1
   without memory. */
int hftool_attention(const attention *a, void *out) {
    const int64_t width = a->tokens + COLUMNS;
    const int64_t size = (a->size * (width + a->tokens + 2 * QUERIES) + (QUERIES + 1) * width) * sizeof(float);
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        float *memory = malloc(size);
        failed = !memory;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < (int64_t)a->sequences * a->heads; i++)
            if (memory) attend_sequence(a, i / a->heads, i % a->heads, memory, out);
        free(memory);
    }
    return failed;
}

/* ---- one token through a whole decoder ---- */

typedef struct {
    linear qkv, out, gate_up, down;
    const float *attention_norm, *mlp_norm;   /* [hidden] */
    const float *after_attention, *after_mlp; /* [hidden], or NULL */
    const float *query_norm, *key_norm;       /* [head_dim], or NULL */
    int32_t rotation;                         /* which one of those of a step */
} layer;

typedef struct {
    const layer *layers;
    linear head;
    const float *norm; /* [hidden] */
    int32_t count, hidden, heads, kv_heads, head_dim, rotated, gelu, bfloat16;
    float eps, scaling;
} decoder;

/* Keys and values of a layer, [kv_heads][capacity][head_dim], from the token at `start` on. A token attends
   to the last `window` tokens, or with 0 to all. */
typedef struct {
    void *keys, *values;
    int64_t capacity;
    int32_t start, window;
} cached;

/* By which a token is rotated: [rotated], with the sign in the sines; or NULL. */
typedef struct {
    const float *cos, *sin;
} rotation;

static void normed(const float *x, const float *weight, int n, float eps, float *out) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    const float inverse = 1 / sqrtf(sum / n + eps);
    for (int i = 0; i < n; i++) out[i] = x[i] * inverse * weight[i];
}

/* Normalize, if there is a weight, and rotate a head. */
static void turned(const float *x, const float *norm, const decoder *d, const rotation *by, float *out) {
    const int size = d->head_dim, turned = by->cos ? d->rotated : 0, half = turned / 2;
    float y[size];
    if (norm) normed(x, norm, size, d->eps, y);
    else memcpy(y, x, size * sizeof(float));
    for (int i = 0; i < half; i++) {
        out[i] = y[i] * by->cos[i] + y[i + half] * by->sin[i];
        out[i + half] = y[i + half] * by->cos[i + half] + y[i] * by->sin[i + half];
    }
    memcpy(out + turned, y + turned, (size - turned) * sizeof(float));
}

/* out [size] = the attention of a query over keys and values [tokens][size] */
INLINE void attend(const float *query, const void *keys, const void *values, int tokens, int size,
                          float scaling, const int bfloat16, float *scores, float *out) {
    float most = -INFINITY, total = 0;
    for (int t = 0; t < tokens; t++) {
        float sum = 0;
        for (int i = 0; i < size; i++) {
            const size_t at = (size_t)t * size + i;
            sum += query[i] * (bfloat16 ? from_bfloat16(((const uint16_t *)keys)[at]) : ((const float *)keys)[at]);
        }
        scores[t] = sum * scaling;
        most = scores[t] > most || scores[t] != scores[t] ? scores[t] : most;
    }
    for (int t = 0; t < tokens; t++) total += scores[t] = exponential(scores[t] - most);
    memset(out, 0, size * sizeof(float));
    for (int t = 0; t < tokens; t++) {
        const float weight = scores[t];
        for (int i = 0; i < size; i++) {
            const size_t at = (size_t)t * size + i;
            out[i] += weight * (bfloat16 ? from_bfloat16(((const uint16_t *)values)[at]) : ((const float *)values)[at]);
        }
    }
    for (int i = 0; i < size; i++) out[i] /= total;
}

INLINE int seen(const cached *c, int position) {
    const int tokens = position + 1 - c->start;
    return c->window && c->window < tokens ? c->window : tokens;
}

static void attend_head(const decoder *d, const cached *c, int position, int head, const float *query,
                               float *scores, float *out) {
    const int size = d->head_dim, tokens = seen(c, position);
    const int64_t kv = head / (d->heads / d->kv_heads);
    const int64_t at = (kv * c->capacity + position + 1 - c->start - tokens) * size;
    if (d->bfloat16)
        attend(query, (uint16_t *)c->keys + at, (uint16_t *)c->values + at, tokens, size, d->scaling, 1, scores, out);
    else attend(query, (float *)c->keys + at, (float *)c->values + at, tokens, size, d->scaling, 0, scores, out);
}

static void activate(const float *gate, const float *up, int gelu, float *out) {
    for (int i = 0; i < BLOCK; i++) {
        const float x = gate[i];
        /* gelu: 0.5 x (1 + tanh(y)) is x / (1 + exp(-2 y)) */
        const float y = gelu ? 1.5957691216f * (x + 0.044715f * x * x * x) : x;
        out[i] = x / (1 + exponential(-y)) * up[i];
    }
}

/* logits [head.outputs] of the token after `length` others, whose embedding is in `hidden`, which is
   overwritten. Keys and values are added to the caches. Returns 1 without memory. */
int hftool_step(const decoder *d, const cached *caches, const rotation *rotations, int32_t length,
                       float *hidden, float *logits) {
    const int size = d->head_dim, heads = d->heads, kv_heads = d->kv_heads;
    const int middle = d->layers[0].down.inputs, n = d->hidden, wide = heads * size;
    int longest = 0, widest = middle > n ? middle : n;
    widest = wide > widest ? wide : widest;
    for (int l = 0; l < d->count; l++) {
        const int tokens = seen(caches + l, length);
        longest = tokens > longest ? tokens : longest;
    }
    const size_t qkv_size = wide + 2 * kv_heads * size;
    float *qkv = malloc((qkv_size + wide + middle + n + (size_t)heads * longest) * sizeof(float));
    if (!qkv) return 1;
    float *attended = qkv + qkv_size, *inner = attended + wide, *output = inner + middle, *scores = output + n;
#pragma omp parallel
    {
        int8_t q[2 * widest];
        float values[n], scale[widest / GROUP * 2];
        int32_t sum[widest / GROUP * 2];
        const rounded rows[2] = {{q, scale, sum}, {q + widest, scale + widest / GROUP, sum + widest / GROUP}};
        for (int l = 0; l < d->count; l++) {
            const layer *m = d->layers + l;
            const cached *c = caches + l;
            normed(hidden, m->attention_norm, n, d->eps, values);
            round_twice(values, n, rows); /* by each thread: it costs less than to wait for another */
#pragma omp for schedule(static)
            for (int b = 0; b < m->qkv.outputs / BLOCK; b++) outputs_of(&m->qkv, b, 1, rows, 1, 2, qkv + b * BLOCK);
#pragma omp for schedule(static)
            for (int h = 0; h < kv_heads; h++) {
                float key[size];
                const int64_t at = (h * c->capacity + length - c->start) * size;
                turned(qkv + wide + h * size, m->key_norm, d, rotations + m->rotation, key);
                store(key, size, d->bfloat16, c->keys, at);
                store(qkv + wide + (kv_heads + h) * size, size, d->bfloat16, c->values, at);
            }
#pragma omp for schedule(static)
            for (int h = 0; h < heads; h++) {
                float query[size];
                turned(qkv + h * size, m->query_norm, d, rotations + m->rotation, query);
                attend_head(d, c, length, h, query, scores + (size_t)h * longest, attended + h * size);
            }
            round_twice(attended, wide, rows);
#pragma omp for schedule(static)
            for (int b = 0; b < n / BLOCK; b++) outputs_of(&m->out, b, 1, rows, 1, 2, output + b * BLOCK);
#pragma omp single
            {
                if (m->after_attention) normed(output, m->after_attention, n, d->eps, output);
                for (int i = 0; i < n; i++) hidden[i] += output[i];
            }
            normed(hidden, m->mlp_norm, n, d->eps, values);
            round_twice(values, n, rows);
#pragma omp for schedule(static)
            for (int b = 0; b < middle / BLOCK; b++) {
                float gate[BLOCK], up[BLOCK];
                outputs_of(&m->gate_up, b, 1, rows, 1, 2, gate);
                outputs_of(&m->gate_up, b + middle / BLOCK, 1, rows, 1, 2, up);
                activate(gate, up, d->gelu, inner + b * BLOCK);
            }
            round_twice(inner, middle, rows);
#pragma omp for schedule(static)
            for (int b = 0; b < n / BLOCK; b++) outputs_of(&m->down, b, 1, rows, 1, 2, output + b * BLOCK);
#pragma omp single
            {
                if (m->after_mlp) normed(output, m->after_mlp, n, d->eps, output);
                for (int i = 0; i < n; i++) hidden[i] += output[i];
            }
        }
        normed(hidden, d->norm, n, d->eps, values);
        round_twice(values, n, rows);
#pragma omp for schedule(static)
        for (int b = 0; b < d->head.outputs / BLOCK; b++) outputs_of(&d->head, b, 1, rows, 1, 2, logits + b * BLOCK);
    }
    free(qkv);
    return 0;
}
