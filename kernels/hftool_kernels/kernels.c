/* Products of a language model's weights in 4 or 8 bits, and the whole step of a decoder for one token.

   Weights are levels from 0 to 15 or 255: a weight is level * scale + least, where 32 weights of a row
   (a group) share scale and least. Activations are rounded to 8 bits, a group at a time, with a scale
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
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx512dq,avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    const uint8_t *levels;  /* [outputs / 16][inputs / 32][256 or 512 bytes] */
    const uint16_t *scales; /* float16 [outputs / 16][inputs / 32][scale, with 4 bits least][16] */
    const float *bias;      /* [outputs], or NULL */
    int32_t inputs, outputs, bits;
} linear;

/* A row of activations, rounded: q * scale. `sum` is the sum of a group's. */
typedef struct {
    int8_t *q;
    float *scale, *sum;
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
AVX512 static void round_row(const float *x, int n, rounded row) {
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
            sum += q;
        }
        row.scale[g] = scale;
        row.sum[g] = scale * (float)sum;
    }
}

AVX512 INLINE __m512i four(const int8_t *q) {
    int32_t value;
    memcpy(&value, q, 4);
    return _mm512_set1_epi32(value);
}

/* out[r] = the 16 outputs of a block for rows[r] */
AVX512 INLINE void block_of(const linear *w, int block, const rounded *rows, const int count,
                            const int bits, float *out) {
    const int groups = w->inputs / GROUP, bytes = GROUP * BLOCK * bits / 8;
    const uint8_t *levels = w->levels + (size_t)block * groups * bytes;
    const uint16_t *scales = w->scales + (size_t)block * groups * BLOCK * (bits == 4 ? 2 : 1);
    const __m512i low = _mm512_set1_epi8(15);
    __m512 total[TILE];
    for (int r = 0; r < count; r++) total[r] = _mm512_setzero_ps();
    for (int g = 0; g < groups; g++, levels += bytes) {
        __m512i even[TILE], odd[TILE];
        for (int r = 0; r < count; r++) even[r] = odd[r] = _mm512_setzero_si512();
        for (int part = 0; part < 4; part++) {
            __m512i first, second;
            if (bits == 4) {
                const __m512i both = _mm512_loadu_si512(levels + 64 * part);
                first = _mm512_and_si512(both, low);
                second = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
            } else {
                first = _mm512_loadu_si512(levels + 64 * part);
                second = _mm512_loadu_si512(levels + 64 * (part + 4));
            }
            _mm_prefetch((const char *)levels + 64 * part + 4096, _MM_HINT_T0);
            if (bits == 8) _mm_prefetch((const char *)levels + 64 * part + 4352, _MM_HINT_T0);
            for (int r = 0; r < count; r++) {
                const int8_t *q = rows[r].q + g * GROUP + 4 * part;
                even[r] = _mm512_dpbusd_epi32(even[r], first, four(q));
                odd[r] = _mm512_dpbusd_epi32(odd[r], second, four(q + 16));
            }
        }
        const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)scales));
        scales += BLOCK;
        __m512 least;
        if (bits == 4) {
            least = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)scales));
            scales += BLOCK;
        } else {
            least = _mm512_mul_ps(scale, _mm512_set1_ps(-128));
        }
        for (int r = 0; r < count; r++) {
            const __m512 dot = _mm512_cvtepi32_ps(_mm512_add_epi32(even[r], odd[r]));
            const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(rows[r].scale[g]));
            total[r] = _mm512_fmadd_ps(both, dot, total[r]);
            total[r] = _mm512_fmadd_ps(least, _mm512_set1_ps(rows[r].sum[g]), total[r]);
        }
    }
    for (int r = 0; r < count; r++) {
        if (w->bias) total[r] = _mm512_add_ps(total[r], _mm512_loadu_ps(w->bias + block * BLOCK));
        _mm512_storeu_ps(out + r * BLOCK, total[r]);
    }
}

AVX512 static void block_of_rows(const linear *w, int block, const rounded *rows, int count, float *out) {
    switch (count + w->bits * 10) {
    case 41: block_of(w, block, rows, 1, 4, out); break;
    case 42: block_of(w, block, rows, 2, 4, out); break;
    case 43: block_of(w, block, rows, 3, 4, out); break;
    case 44: block_of(w, block, rows, 4, 4, out); break;
    case 81: block_of(w, block, rows, 1, 8, out); break;
    case 82: block_of(w, block, rows, 2, 8, out); break;
    case 83: block_of(w, block, rows, 3, 8, out); break;
    case 84: block_of(w, block, rows, 4, 8, out); break;
    }
}

int hftool_supported(void) {
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

/* out [rows, outputs] = x [rows, inputs] * weights, both float32 or both bfloat16. Returns 1 without memory. */
AVX512 int hftool_product(const linear *w, const void *x, int32_t bfloat16, int64_t rows, void *out) {
    const int64_t inputs = w->inputs, outputs = w->outputs, groups = inputs / GROUP;
    if (!rows) return 0;
    int8_t *q = malloc(rows * inputs);
    float *scales = malloc(2 * rows * groups * sizeof(float));
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
            rounded one = {q + r * inputs, scales + 2 * r * groups, scales + (2 * r + 1) * groups};
            round_row(row, inputs, one);
        }
        /* A few hundred rows stay in the cache while all blocks pass over them. */
        for (int64_t begin = 0; begin < rows; begin += 256) {
            const int64_t end = begin + 256 < rows ? begin + 256 : rows;
#pragma omp for schedule(static) nowait
            for (int64_t block = 0; block < outputs / BLOCK; block++) {
                for (int64_t r = begin; r < end; r += TILE) {
                    const int count = end - r < TILE ? (int)(end - r) : TILE;
                    rounded tile[TILE];
                    float part[TILE * BLOCK];
                    for (int t = 0; t < count; t++) {
                        const int64_t row = r + t;
                        tile[t] = (rounded){q + row * inputs, scales + 2 * row * groups,
                                            scales + (2 * row + 1) * groups};
                    }
                    block_of_rows(w, block, tile, count, part);
                    for (int t = 0; t < count; t++) {
                        const int64_t at = (r + t) * outputs + block * BLOCK;
                        if (!bfloat16) memcpy((float *)out + at, part + t * BLOCK, BLOCK * sizeof(float));
                        else
                            for (int i = 0; i < BLOCK; i++)
                                ((uint16_t *)out)[at + i] = to_bfloat16(part[t * BLOCK + i]);
                    }
                }
            }
        }
    }
    free(q);
    free(scales);
    return 0;
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

AVX512 static void normed(const float *x, const float *weight, int n, float eps, float *out) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    const float inverse = 1 / sqrtf(sum / n + eps);
    for (int i = 0; i < n; i++) out[i] = x[i] * inverse * weight[i];
}

/* Normalize, if there is a weight, and rotate a head. */
AVX512 static void turned(const float *x, const float *norm, const decoder *d, const rotation *by, float *out) {
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

AVX512 static void store(const float *x, int n, int bfloat16, void *to, int64_t at) {
    if (!bfloat16) memcpy((float *)to + at, x, n * sizeof(float));
    else
        for (int i = 0; i < n; i++) ((uint16_t *)to)[at + i] = to_bfloat16(x[i]);
}

/* out [size] = the attention of a query over keys and values [tokens][size] */
AVX512 INLINE void attend(const float *query, const void *keys, const void *values, int tokens, int size,
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

AVX512 static void attend_head(const decoder *d, const cached *c, int position, int head, const float *query,
                               float *scores, float *out) {
    const int size = d->head_dim, tokens = seen(c, position);
    const int64_t kv = head / (d->heads / d->kv_heads);
    const int64_t at = (kv * c->capacity + position + 1 - c->start - tokens) * size;
    if (d->bfloat16)
        attend(query, (uint16_t *)c->keys + at, (uint16_t *)c->values + at, tokens, size, d->scaling, 1, scores, out);
    else attend(query, (float *)c->keys + at, (float *)c->values + at, tokens, size, d->scaling, 0, scores, out);
}

AVX512 static void activate(const float *gate, const float *up, int gelu, float *out) {
    for (int i = 0; i < BLOCK; i++) {
        const float x = gate[i];
        /* gelu: 0.5 x (1 + tanh(y)) is x / (1 + exp(-2 y)) */
        const float y = gelu ? 1.5957691216f * (x + 0.044715f * x * x * x) : x;
        out[i] = x / (1 + exponential(-y)) * up[i];
    }
}

/* logits [head.outputs] of the token after `length` others, whose embedding is in `hidden`, which is
   overwritten. Keys and values are added to the caches. Returns 1 without memory. */
AVX512 int hftool_step(const decoder *d, const cached *caches, const rotation *rotations, int32_t length,
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
        int8_t q[widest];
        float values[n], scale[widest / GROUP], sum[widest / GROUP];
        const rounded row = {q, scale, sum};
        for (int l = 0; l < d->count; l++) {
            const layer *m = d->layers + l;
            const cached *c = caches + l;
            normed(hidden, m->attention_norm, n, d->eps, values);
            round_row(values, n, row); /* by each thread: it costs less than to wait for another */
#pragma omp for schedule(static)
            for (int b = 0; b < m->qkv.outputs / BLOCK; b++) block_of_rows(&m->qkv, b, &row, 1, qkv + b * BLOCK);
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
            round_row(attended, wide, row);
#pragma omp for schedule(static)
            for (int b = 0; b < n / BLOCK; b++) block_of_rows(&m->out, b, &row, 1, output + b * BLOCK);
#pragma omp single
            {
                if (m->after_attention) normed(output, m->after_attention, n, d->eps, output);
                for (int i = 0; i < n; i++) hidden[i] += output[i];
            }
            normed(hidden, m->mlp_norm, n, d->eps, values);
            round_row(values, n, row);
#pragma omp for schedule(static)
            for (int b = 0; b < middle / BLOCK; b++) {
                float gate[BLOCK], up[BLOCK];
                block_of_rows(&m->gate_up, b, &row, 1, gate);
                block_of_rows(&m->gate_up, b + middle / BLOCK, &row, 1, up);
                activate(gate, up, d->gelu, inner + b * BLOCK);
            }
            round_row(inner, middle, row);
#pragma omp for schedule(static)
            for (int b = 0; b < n / BLOCK; b++) block_of_rows(&m->down, b, &row, 1, output + b * BLOCK);
#pragma omp single
            {
                if (m->after_mlp) normed(output, m->after_mlp, n, d->eps, output);
                for (int i = 0; i < n; i++) hidden[i] += output[i];
            }
        }
        normed(hidden, d->norm, n, d->eps, values);
        round_row(values, n, row);
#pragma omp for schedule(static)
        for (int b = 0; b < d->head.outputs / BLOCK; b++) block_of_rows(&d->head, b, &row, 1, logits + b * BLOCK);
    }
    free(qkv);
    return 0;
}
