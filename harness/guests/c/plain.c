/* The forward pass, one row at a time, with a running softmax in double: the example of a guest behind the C interface. */
#include "nsa_guest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    double top, total, *sum;
} row;

const char *nsa_guest_declaration(void) {
    return "{\"name\": \"plain C\", \"arithmetic\": {\"f32\": \"f32\", \"f16\": \"f32\", \"bf16\": \"f32\"},"
           " \"reads_only_what_it_attends_to\": true, \"fields\": [\"out\", \"lse\"]}";
}

/* One more key: `key` beyond the sequence is padding, whose score and value are 0. */
static void take(row *r, const nsa_guest_case *p, const float *q, const float *k, const float *v, int64_t key, double factor) {
    int padded = key >= p->seq_len;
    double score = 0;
    for (int64_t d = 0; !padded && d < p->dim; d++) score += (double)q[d] * k[key * p->dim + d];
    score *= factor / sqrt((double)p->dim);
    /* Not fmax, which would drop a NaN. */
    double top = r->top >= score ? r->top : score, weight = exp(score - top), kept = exp(r->top - top);
    r->total = r->total * kept + weight;
    for (int64_t d = 0; d < p->value_dim; d++)
        r->sum[d] = r->sum[d] * kept + (padded ? 0 : weight * v[key * p->value_dim + d]);
    r->top = top;
}

static void attend(row *r, const nsa_guest_case *p, int64_t b, int64_t h, int64_t i) {
    int64_t kv = b * p->kv_heads + h / (p->q_heads / p->kv_heads), block = p->block_size;
    const float *q = (const float *)p->q + ((b * p->q_heads + h) * p->seq_len + i) * p->dim;
    const float *k = (const float *)p->k + kv * p->seq_len * p->dim;
    const float *v = (const float *)p->v + kv * p->seq_len * p->value_dim;
    for (int64_t j = i / block * block; p->include_block_causal && j <= i; j++) take(r, p, q, k, v, j, 1);
    int64_t slots = ((b * p->sel_heads + h / (p->q_heads / p->sel_heads)) * p->seq_len + i) * p->num_sel;
    for (int64_t s = slots; s < slots + p->num_sel; s++) {
        double factor = p->sel_scale ? ((const float *)p->sel_scale)[s] : 1;
        for (int64_t j = 0; p->mask[s] && j < block; j++) take(r, p, q, k, v, p->indices[s] * block + j, factor);
    }
}

int nsa_guest_run(const nsa_guest_case *p, const nsa_guest_outputs *answer, char *message, size_t message_bytes) {
    if (p->abi != NSA_GUEST_ABI || strcmp(p->element, "f64") == 0) {
        snprintf(message, message_bytes, "abi %u, element %s", p->abi, p->element);
        return NSA_GUEST_SKIP;
    }
    double *sum = malloc(p->value_dim * sizeof *sum);
    if (!sum) {
        snprintf(message, message_bytes, "out of memory");
        return NSA_GUEST_ERROR;
    }
    for (int64_t at = 0; at < p->batch * p->q_heads * p->seq_len; at++) {
        int64_t i = at % p->seq_len, h = at / p->seq_len % p->q_heads, b = at / p->seq_len / p->q_heads;
        row r = {-INFINITY, 0, sum};
        memset(sum, 0, p->value_dim * sizeof *sum);
        attend(&r, p, b, h, i);
        for (int64_t d = 0; d < p->value_dim; d++)
            ((float *)answer->out)[at * p->value_dim + d] = r.total == 0 ? 0 : sum[d] / r.total;
        ((float *)answer->lse)[at] = r.top + log(r.total);
    }
    free(sum);
    return NSA_GUEST_OK;
}
