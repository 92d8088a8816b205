/* Every visible struct in the sizes that callers of other versions have: that of 0.1, for ever; larger; too small. */
#include <autoscheme.h>
#include <string.h>

#include "c_tests.h"
#include "check.h"

struct handles {
  autoscheme_context* context;
  autoscheme_skeleton* skeleton;
  autoscheme_options* options;
  autoscheme_calibration* calibration;
  autoscheme_generator* generator;
  autoscheme_plan* plan;
  autoscheme_scores* scores;
  autoscheme_pareto* pareto;
  autoscheme_recipes* recipes;
  autoscheme_evaluation* evaluation;
  autoscheme_streamer* streamer;
  autoscheme_offload* offload;
};

static int32_t move(void* user_data, const char* name) {
  (void)user_data, (void)name;
  return 0;
}
static int32_t take(void* user_data, const char* name, const void* data, size_t bytes) {
  (void)user_data, (void)name, (void)data, (void)bytes;
  return 0;
}

static int make_handles(struct handles* h, const char* model, const char* tokens) {
  int failures = 0;
  autoscheme_offload_callbacks callbacks = {sizeof callbacks, NULL, move, take};
  memset(h, 0, sizeof *h);
  CHECK_C(autoscheme_context_create(&h->context, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_skeleton_open(h->context, model, &h->skeleton, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_calibration_load(h->context, tokens, &h->calibration, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_create(&h->options, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_set_str(h->options, AUTOSCHEME_OPTION_SCHEMES, "W4A16,W8A16", NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_set_i64(h->options, AUTOSCHEME_OPTION_THREADS, 1, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_set_f64(h->options, AUTOSCHEME_OPTION_AVG_BITS, 6, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_generator_create(h->context, h->skeleton, h->options, &h->generator, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_generator_plan(h->generator, h->calibration, &h->plan, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_generator_run(h->generator, h->calibration, &h->scores, &h->recipes, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_scores_pareto(h->scores, NULL, &h->pareto, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_evaluate(h->context, h->skeleton, h->options, h->calibration, NULL, NULL, 0, &h->evaluation,
                              NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_streamer_create(h->context, h->skeleton, NULL, NULL, 0, &h->streamer, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_streamer_next(h->streamer, NULL, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_offload_create(h->context, h->skeleton, NULL, &callbacks, NULL, NULL, &h->offload, NULL) ==
          AUTOSCHEME_OK);
  return failures;
}

static void free_handles(struct handles* h) {
  autoscheme_offload_free(h->offload);
  autoscheme_streamer_free(h->streamer);
  autoscheme_evaluation_free(h->evaluation);
  autoscheme_recipes_free(h->recipes);
  autoscheme_pareto_free(h->pareto);
  autoscheme_scores_free(h->scores);
  autoscheme_plan_free(h->plan);
  autoscheme_generator_free(h->generator);
  autoscheme_options_free(h->options);
  autoscheme_calibration_free(h->calibration);
  autoscheme_skeleton_free(h->skeleton);
  autoscheme_context_free(h->context);
}

/* Each fills the struct at `s` in one of the ways that there are. */
static autoscheme_status scheme_get(struct handles* h, void* s) { return (void)h, autoscheme_scheme_get(0, s, NULL); }
static autoscheme_status scheme_find(struct handles* h, void* s) {
  return (void)h, autoscheme_scheme_find("W4A16", s, NULL);
}
static autoscheme_status option(struct handles* h, void* s) {
  return (void)h, autoscheme_option_describe(AUTOSCHEME_OPTION_SCHEMES, s, NULL);
}
static autoscheme_status skeleton(struct handles* h, void* s) {
  return autoscheme_skeleton_get_info(h->skeleton, s, NULL);
}
static autoscheme_status block(struct handles* h, void* s) {
  return autoscheme_skeleton_get_block(h->skeleton, 1, s, NULL);
}
static autoscheme_status layer(struct handles* h, void* s) {
  return autoscheme_skeleton_get_layer(h->skeleton, 1, s, NULL);
}
static autoscheme_status tensor(struct handles* h, void* s) {
  return autoscheme_skeleton_get_tensor(h->skeleton, 1, s, NULL);
}
static autoscheme_status calibration(struct handles* h, void* s) {
  return autoscheme_calibration_get_info(h->calibration, s, NULL);
}
static autoscheme_status stats(struct handles* h, void* s) {
  return autoscheme_generator_get_stats(h->generator, s, NULL);
}
static autoscheme_status plan(struct handles* h, void* s) { return autoscheme_plan_get_info(h->plan, s, NULL); }
static autoscheme_status plan_item(struct handles* h, void* s) { return autoscheme_plan_get_item(h->plan, 0, s, NULL); }
static autoscheme_status scores(struct handles* h, void* s) { return autoscheme_scores_get_info(h->scores, s, NULL); }
static autoscheme_status scores_scheme(struct handles* h, void* s) {
  return autoscheme_scores_get_scheme(h->scores, 0, s, NULL);
}
static autoscheme_status scores_layer(struct handles* h, void* s) {
  return autoscheme_scores_get_layer(h->scores, 0, s, NULL);
}
static autoscheme_status pareto(struct handles* h, void* s) { return autoscheme_pareto_get_info(h->pareto, s, NULL); }
static autoscheme_status pareto_point(struct handles* h, void* s) {
  return autoscheme_pareto_get_point(h->pareto, 0, s, NULL);
}
static autoscheme_status recipe(struct handles* h, void* s) {
  return autoscheme_recipes_get_info(h->recipes, 0, s, NULL);
}
static autoscheme_status recipe_scheme(struct handles* h, void* s) {
  return autoscheme_recipes_get_layer(h->recipes, 0, 0, NULL, s, NULL, NULL);
}
static autoscheme_status evaluation(struct handles* h, void* s) {
  return autoscheme_evaluation_get_info(h->evaluation, s, NULL);
}
static autoscheme_status recipe_evaluation(struct handles* h, void* s) {
  return autoscheme_evaluation_get_recipe(h->evaluation, 1, s, NULL);
}
static autoscheme_status evaluation_stats(struct handles* h, void* s) {
  return autoscheme_evaluation_get_stats(h->evaluation, s, NULL);
}
static autoscheme_status next(struct handles* h, void* s) {
  autoscheme_streamer_free(h->streamer);
  h->streamer = NULL;
  if (autoscheme_streamer_create(h->context, h->skeleton, NULL, NULL, 0, &h->streamer, NULL) != AUTOSCHEME_OK) {
    return AUTOSCHEME_UNKNOWN;
  }
  return autoscheme_streamer_next(h->streamer, s, NULL);
}
static autoscheme_status step_tensor(struct handles* h, void* s) {
  if (next(h, NULL) != AUTOSCHEME_OK) return AUTOSCHEME_UNKNOWN;
  return autoscheme_streamer_get_tensor_info(h->streamer, 0, s, NULL);
}
static autoscheme_status streamer_stats(struct handles* h, void* s) {
  return autoscheme_streamer_get_stats(h->streamer, s, NULL);
}
static autoscheme_status offload(struct handles* h, void* s) {
  return autoscheme_offload_get_info(h->offload, s, NULL);
}

/* Sizes of 0.1, on machines with 64-bit pointers: not to be changed when a struct grows. */
static const struct {
  size_t first_bytes, bytes;
  autoscheme_status (*fill)(struct handles* h, void* s);
} kStructs[] = {
    {80, sizeof(autoscheme_scheme_info), scheme_get},
    {80, sizeof(autoscheme_scheme_info), scheme_find},
    {80, sizeof(autoscheme_scheme_info), scores_scheme},
    {80, sizeof(autoscheme_scheme_info), recipe_scheme},
    {88, sizeof(autoscheme_option_info), option},
    {112, sizeof(autoscheme_skeleton_info), skeleton},
    {56, sizeof(autoscheme_block_info), block},
    {56, sizeof(autoscheme_layer_info), layer},
    {56, sizeof(autoscheme_layer_info), scores_layer},
    {64, sizeof(autoscheme_tensor_info), tensor},
    {40, sizeof(autoscheme_calibration_info), calibration},
    {144, sizeof(autoscheme_stats), stats},
    {128, sizeof(autoscheme_plan_info), plan},
    {24, sizeof(autoscheme_plan_item), plan_item},
    {96, sizeof(autoscheme_scores_info), scores},
    {32, sizeof(autoscheme_pareto_info), pareto},
    {40, sizeof(autoscheme_pareto_point), pareto_point},
    {80, sizeof(autoscheme_recipe_info), recipe},
    {64, sizeof(autoscheme_evaluation_info), evaluation},
    {104, sizeof(autoscheme_recipe_evaluation), recipe_evaluation},
    {144, sizeof(autoscheme_stats), evaluation_stats},
    {40, sizeof(autoscheme_step), next},
    {64, sizeof(autoscheme_tensor_info), step_tensor},
    {48, sizeof(autoscheme_streamer_stats), streamer_stats},
    {24, sizeof(autoscheme_offload_info), offload},
};

enum { kRoom = 512, kUntouched = 0x55 };
union room {
  size_t struct_size;
  double aligned;
  unsigned char bytes[kRoom];
};

/* 1 if all of bytes[from..to) are `value`. */
static int all(const union room* room, size_t from, size_t to, int value) {
  for (; from < to; ++from) {
    if (room->bytes[from] != value) return 0;
  }
  return 1;
}

static int filled(struct handles* h) {
  int failures = 0;
  size_t i;
  for (i = 0; i < sizeof kStructs / sizeof kStructs[0]; ++i) {
    const size_t first = kStructs[i].first_bytes, now = kStructs[i].bytes;
    union room old, later, small;
    const int before = failures;
    memset(&old, kUntouched, sizeof old);
    old.struct_size = first;
    CHECK_C(kStructs[i].fill(h, &old) == AUTOSCHEME_OK);
    CHECK_C(old.struct_size == first);
    CHECK_C(!all(&old, sizeof(size_t), first, kUntouched));
    CHECK_C(all(&old, first, kRoom, kUntouched));

    memset(&later, kUntouched, sizeof later);
    later.struct_size = now + 24;
    CHECK_C(kStructs[i].fill(h, &later) == AUTOSCHEME_OK);
    CHECK_C(later.struct_size == now + 24);
    CHECK_C(all(&later, now, now + 24, 0));
    CHECK_C(all(&later, now + 24, kRoom, kUntouched));

    memset(&small, kUntouched, sizeof small);
    small.struct_size = first - 1;
    CHECK_C(kStructs[i].fill(h, &small) == AUTOSCHEME_INVALID_ARGUMENT);
    CHECK_C(small.struct_size == first - 1);
    CHECK_C(all(&small, sizeof(size_t), kRoom, kUntouched));
    if (failures != before) fprintf(stderr, "  of struct %d\n", (int)i);
  }
  return failures;
}

/* What the library reads. */
static int read(struct handles* h) {
  int failures = 0;
  union room room;
  const autoscheme_offload_callbacks callbacks = {32, NULL, move, take}; /* 32: its size in 0.1 */
  const size_t now = sizeof callbacks;
  autoscheme_offload* made = NULL;
  memset(&room, kUntouched, sizeof room);
  memcpy(&room, &callbacks, 32);
  CHECK_C(autoscheme_offload_create(h->context, h->skeleton, NULL, (const void*)&room, NULL, NULL, &made, NULL) ==
          AUTOSCHEME_OK);
  autoscheme_offload_free(made);
  made = NULL;

  memset(room.bytes + now, 0, kRoom - now);
  room.struct_size = now + 24;
  CHECK_C(autoscheme_offload_create(h->context, h->skeleton, NULL, (const void*)&room, NULL, NULL, &made, NULL) ==
          AUTOSCHEME_OK);
  autoscheme_offload_free(made);
  made = NULL;
  room.bytes[now + 23] = 1;
  CHECK_C(autoscheme_offload_create(h->context, h->skeleton, NULL, (const void*)&room, NULL, NULL, &made, NULL) ==
          AUTOSCHEME_INVALID_ARGUMENT);
  room.struct_size = 31;
  CHECK_C(autoscheme_offload_create(h->context, h->skeleton, NULL, (const void*)&room, NULL, NULL, &made, NULL) ==
          AUTOSCHEME_INVALID_ARGUMENT);
  CHECK_C(made == NULL);
  return failures;
}

int struct_failures(const char* model, const char* tokens) {
  struct handles h;
  int failures = make_handles(&h, model, tokens);
#if UINTPTR_MAX == UINT64_MAX
  if (failures == 0) failures += filled(&h) + read(&h);
#endif
  free_handles(&h);
  return failures;
}
