/* Every pointer of every function may be NULL: INVALID_ARGUMENT, never a crash. And whatever makes a call fail, its
 * out-parameters are NULL or 0 afterwards, and its structs as they were. */
#include <autoscheme.h>
#include <stddef.h>
#include <string.h>

#include "c_tests.h"
#include "check.h"

/* Good handles, to go with the one NULL. */
struct handles {
  autoscheme_context* context;
  autoscheme_context* stream_context;
  autoscheme_skeleton* skeleton;
  autoscheme_options* options;
  autoscheme_calibration* calibration;
  autoscheme_calibration* long_calibration; /* rows longer than the model takes */
  autoscheme_generator* generator;
  autoscheme_generator* busy_generator; /* on stream_context */
  autoscheme_plan* plan;
  autoscheme_scores* scores;
  autoscheme_pareto* pareto;
  autoscheme_recipes* recipes;
  autoscheme_streamer* streamer;
  autoscheme_offload* offload;
  autoscheme_evaluation* evaluation;
};

static int32_t give(void* user_data, const char* name, void* out, size_t bytes) {
  (void)user_data, (void)name;
  memset(out, 0, bytes);
  return 0;
}
static int32_t drop(void* user_data, const char* name) {
  (void)user_data, (void)name;
  return 0;
}
static int32_t take(void* user_data, const char* name, const void* data, size_t bytes) {
  (void)user_data, (void)name, (void)data, (void)bytes;
  return 0;
}

static int make_handles(struct handles* h, const char* model, const char* tokens) {
  int failures = 0;
  autoscheme_offload_callbacks callbacks = {sizeof callbacks, give, drop, take};
  const int32_t ids[1000] = {0};
  memset(h, 0, sizeof *h);
  CHECK_C(autoscheme_context_create(&h->context, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_context_create(&h->stream_context, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_skeleton_open(h->context, model, &h->skeleton, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_calibration_load(h->context, tokens, &h->calibration, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_create(&h->options, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_set_str(h->options, AUTOSCHEME_OPTION_SCHEMES, "W4A16,W8A16", NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_set_i64(h->options, AUTOSCHEME_OPTION_THREADS, 1, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_set_f64(h->options, AUTOSCHEME_OPTION_AVG_BITS, 6, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_generator_create(h->context, h->skeleton, h->options, &h->generator, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_generator_create(h->stream_context, h->skeleton, h->options, &h->busy_generator, NULL) ==
          AUTOSCHEME_OK);
  CHECK_C(autoscheme_calibration_from_i32(ids, 1, 1000, &h->long_calibration, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_generator_plan(h->generator, h->calibration, &h->plan, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_generator_run(h->generator, h->calibration, &h->scores, &h->recipes, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_scores_pareto(h->scores, NULL, &h->pareto, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_evaluate(h->context, h->skeleton, h->options, h->calibration, NULL, NULL, 0, &h->evaluation,
                              NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_streamer_create(h->stream_context, h->skeleton, NULL, NULL, 0, &h->streamer, NULL) ==
          AUTOSCHEME_OK);
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
  autoscheme_generator_free(h->busy_generator);
  autoscheme_generator_free(h->generator);
  autoscheme_calibration_free(h->long_calibration);
  autoscheme_options_free(h->options);
  autoscheme_calibration_free(h->calibration);
  autoscheme_skeleton_free(h->skeleton);
  autoscheme_context_free(h->stream_context);
  autoscheme_context_free(h->context);
}

/* Each with its struct_size set. */
struct infos {
  autoscheme_block_info block_info;
  autoscheme_calibration_info calibration_info;
  autoscheme_layer_info layer_info;
  autoscheme_offload_info offload_info;
  autoscheme_option_info option_info;
  autoscheme_plan_info plan_info;
  autoscheme_plan_item plan_item;
  autoscheme_pareto_info pareto_info;
  autoscheme_pareto_point pareto_point;
  autoscheme_recipe_info recipe_info;
  autoscheme_refined_info refined_info;
  autoscheme_verified_info verified_info;
  autoscheme_uniform_info uniform_info;
  autoscheme_evaluation_info evaluation_info;
  autoscheme_recipe_evaluation recipe_evaluation;
  autoscheme_scheme_info scheme_info;
  autoscheme_scores_info scores_info;
  autoscheme_skeleton_info skeleton_info;
  autoscheme_stats stats;
  autoscheme_step step;
  autoscheme_streamer_stats streamer_stats;
  autoscheme_tensor_info tensor_info;
};

static void make_infos(struct infos* s) {
  memset(s, 0, sizeof *s);
  s->block_info.struct_size = sizeof s->block_info;
  s->calibration_info.struct_size = sizeof s->calibration_info;
  s->layer_info.struct_size = sizeof s->layer_info;
  s->offload_info.struct_size = sizeof s->offload_info;
  s->option_info.struct_size = sizeof s->option_info;
  s->plan_info.struct_size = sizeof s->plan_info;
  s->plan_item.struct_size = sizeof s->plan_item;
  s->pareto_info.struct_size = sizeof s->pareto_info;
  s->pareto_point.struct_size = sizeof s->pareto_point;
  s->recipe_info.struct_size = sizeof s->recipe_info;
  s->refined_info.struct_size = sizeof s->refined_info;
  s->verified_info.struct_size = sizeof s->verified_info;
  s->uniform_info.struct_size = sizeof s->uniform_info;
  s->evaluation_info.struct_size = sizeof s->evaluation_info;
  s->recipe_evaluation.struct_size = sizeof s->recipe_evaluation;
  s->scheme_info.struct_size = sizeof s->scheme_info;
  s->scores_info.struct_size = sizeof s->scores_info;
  s->skeleton_info.struct_size = sizeof s->skeleton_info;
  s->stats.struct_size = sizeof s->stats;
  s->step.struct_size = sizeof s->step;
  s->streamer_stats.struct_size = sizeof s->streamer_stats;
  s->tensor_info.struct_size = sizeof s->tensor_info;
}

/* Where results would go; what a failed call is given of it must be NULL or 0 afterwards. */
struct outs {
  autoscheme_skeleton* skeleton;
  autoscheme_calibration* calibration;
  autoscheme_calibration* held_back;
  autoscheme_generator* generator;
  autoscheme_plan* plan;
  autoscheme_scores* scores;
  autoscheme_recipes* recipes;
  autoscheme_pareto* pareto;
  autoscheme_evaluation* evaluation;
  autoscheme_streamer* streamer;
  autoscheme_offload* offload;
  struct DLManagedTensorVersioned* tensor;
  autoscheme_context* context;
  autoscheme_options* options;
  const char* text;
  size_t length;
  int64_t i64;
  int32_t i32;
  double f64, other_f64;
};

/* 1 if all members of `out` that `call`, the text of a call, names as out-parameters are zero. */
static int cleared(const char* call, const struct outs* out) {
#define MEMBER(name) \
  { "&out." #name, &out->name, sizeof out->name }
  const struct {
    const char* text;
    const void* value;
    size_t bytes;
  } members[] = {MEMBER(skeleton), MEMBER(calibration), MEMBER(held_back), MEMBER(generator),  MEMBER(plan),
                 MEMBER(scores),   MEMBER(recipes),     MEMBER(pareto),    MEMBER(evaluation), MEMBER(streamer),
                 MEMBER(offload),  MEMBER(tensor),      MEMBER(context),   MEMBER(options),    MEMBER(text),
                 MEMBER(length),   MEMBER(i64),         MEMBER(i32),       MEMBER(f64),        MEMBER(other_f64)};
#undef MEMBER
  const char zeros[16] = {0};
  int good = 1;
  size_t i;
  for (i = 0; i < sizeof members / sizeof members[0]; ++i) {
    const char* at = strstr(call, members[i].text);
    const char after = at == NULL ? '\0' : at[strlen(members[i].text)];
    if (at == NULL || (after != ',' && after != ')')) continue;
    if (memcmp(members[i].value, zeros, members[i].bytes) == 0) continue;
    fprintf(stderr, "%s is left in %s\n", members[i].text, call);
    good = 0;
  }
  return good;
}

/* The call fails with `status` and a message that holds `part`, clears its out-parameters (members of `out`) and leaves
 * structs (of `s`) alone. */
#define FAILS_SAYING(status, part, call)                            \
  do {                                                              \
    autoscheme_error* error = NULL;                                 \
    struct infos before;                                            \
    memset(&out, 0x10, sizeof out);                                 \
    before = s;                                                     \
    CHECK_C((call) == (status));                                    \
    CHECK_C(autoscheme_error_code(error) == (status));              \
    CHECK_C(strstr(autoscheme_error_message(error), part) != NULL); \
    CHECK_C(cleared(#call, &out));                                  \
    CHECK_C(memcmp(&before, &s, sizeof s) == 0);                    \
    autoscheme_error_free(error);                                   \
  } while (0)
#define FAILS_WITH(status, call) FAILS_SAYING(status, " ", call)
#define REFUSES(call) FAILS_SAYING(AUTOSCHEME_INVALID_ARGUMENT, "NULL", call)

static int refused(struct handles* h, const char* model) {
  int failures = 0;
  struct infos s;
  struct outs out;
  const autoscheme_offload_callbacks callbacks = {sizeof callbacks, give, drop, take};
  const int32_t ids32[1] = {1};
  const int64_t ids64[1] = {1};
  const int64_t shape[1] = {1};
  const int64_t order[1] = {0};
  const double avg_bits[1] = {4};
  const char* names[1] = {"x"};
  const char* no_name[1] = {NULL};
  const char* no_paths[1] = {NULL};
  make_infos(&s);
  REFUSES(autoscheme_context_create(NULL, &error));
  REFUSES(autoscheme_context_set_log(NULL, NULL, NULL, NULL, &error));
  REFUSES(autoscheme_context_set_progress(NULL, NULL, NULL, NULL, &error));
  REFUSES(autoscheme_context_set_aliases(NULL, NULL, &error));
  REFUSES(autoscheme_scheme_get(0, NULL, &error));
  REFUSES(autoscheme_scheme_find(NULL, &s.scheme_info, &error));
  REFUSES(autoscheme_scheme_find("W4A16", NULL, &error));
  REFUSES(autoscheme_scheme_why_unsuited(NULL, 64, 64, &out.text, &error));
  REFUSES(autoscheme_scheme_why_unsuited("W4A16", 64, 64, NULL, &error));
  REFUSES(autoscheme_options_create(NULL, &error));
  REFUSES(autoscheme_options_set_i64(NULL, AUTOSCHEME_OPTION_BATCH_SIZE, 1, &error));
  REFUSES(autoscheme_options_set_f64(NULL, AUTOSCHEME_OPTION_AVG_BITS, 1, &error));
  REFUSES(autoscheme_options_set_str(NULL, AUTOSCHEME_OPTION_BATCH_SIZE, "1", &error));
  REFUSES(autoscheme_options_set_str(h->options, AUTOSCHEME_OPTION_BATCH_SIZE, NULL, &error));
  REFUSES(autoscheme_options_get_i64(NULL, AUTOSCHEME_OPTION_BATCH_SIZE, &out.i64, &error));
  REFUSES(autoscheme_options_get_i64(h->options, AUTOSCHEME_OPTION_BATCH_SIZE, NULL, &error));
  REFUSES(autoscheme_options_get_f64(NULL, AUTOSCHEME_OPTION_AVG_BITS, &out.f64, &error));
  REFUSES(autoscheme_options_get_f64(h->options, AUTOSCHEME_OPTION_AVG_BITS, NULL, &error));
  REFUSES(autoscheme_options_get_str(NULL, AUTOSCHEME_OPTION_BATCH_SIZE, &out.text, &error));
  REFUSES(autoscheme_options_get_str(h->options, AUTOSCHEME_OPTION_BATCH_SIZE, NULL, &error));
  REFUSES(autoscheme_option_describe(AUTOSCHEME_OPTION_BATCH_SIZE, NULL, &error));
  REFUSES(autoscheme_skeleton_open(NULL, model, &out.skeleton, &error));
  REFUSES(autoscheme_skeleton_open(h->context, NULL, &out.skeleton, &error));
  REFUSES(autoscheme_skeleton_open(h->context, model, NULL, &error));
  REFUSES(autoscheme_skeleton_get_info(NULL, &s.skeleton_info, &error));
  REFUSES(autoscheme_skeleton_get_info(h->skeleton, NULL, &error));
  REFUSES(autoscheme_skeleton_get_block(NULL, 0, &s.block_info, &error));
  REFUSES(autoscheme_skeleton_get_block(h->skeleton, 0, NULL, &error));
  REFUSES(autoscheme_skeleton_get_layer(NULL, 0, &s.layer_info, &error));
  REFUSES(autoscheme_skeleton_get_layer(h->skeleton, 0, NULL, &error));
  REFUSES(autoscheme_skeleton_get_tensor(NULL, 0, &s.tensor_info, &error));
  REFUSES(autoscheme_skeleton_get_tensor(h->skeleton, 0, NULL, &error));
  REFUSES(autoscheme_skeleton_json(NULL, &out.text, &out.length, &error));
  REFUSES(autoscheme_skeleton_json(h->skeleton, NULL, &out.length, &error));
  REFUSES(autoscheme_calibration_load(NULL, "/nonexistent/x", &out.calibration, &error));
  REFUSES(autoscheme_calibration_load(h->context, NULL, &out.calibration, &error));
  REFUSES(autoscheme_calibration_load(h->context, "/nonexistent/x", NULL, &error));
  REFUSES(autoscheme_calibration_load_part(NULL, "/nonexistent/x", 1, 1, 1, &out.calibration, &error));
  REFUSES(autoscheme_calibration_load_part(h->context, NULL, 1, 1, 1, &out.calibration, &error));
  REFUSES(autoscheme_calibration_load_part(h->context, "/nonexistent/x", 1, 1, 1, NULL, &error));
  REFUSES(autoscheme_calibration_from_i32(NULL, 1, 1, &out.calibration, &error));
  REFUSES(autoscheme_calibration_from_i32(ids32, 1, 1, NULL, &error));
  REFUSES(autoscheme_calibration_from_i64(NULL, 1, 1, &out.calibration, &error));
  REFUSES(autoscheme_calibration_from_i64(ids64, 1, 1, NULL, &error));
  REFUSES(autoscheme_calibration_hold_back(NULL, 1, &out.calibration, &out.held_back, &error));
  REFUSES(autoscheme_calibration_hold_back(h->calibration, 1, NULL, &out.held_back, &error));
  REFUSES(autoscheme_calibration_hold_back(h->calibration, 1, &out.calibration, NULL, &error));
  REFUSES(autoscheme_calibration_truncate(NULL, 1, 1, &out.calibration, &error));
  REFUSES(autoscheme_calibration_truncate(h->calibration, 1, 1, NULL, &error));
  REFUSES(autoscheme_calibration_get_info(NULL, &s.calibration_info, &error));
  REFUSES(autoscheme_calibration_get_info(h->calibration, NULL, &error));
  REFUSES(autoscheme_generator_create(NULL, h->skeleton, h->options, &out.generator, &error));
  REFUSES(autoscheme_generator_create(h->context, NULL, h->options, &out.generator, &error));
  REFUSES(autoscheme_generator_create(h->context, h->skeleton, NULL, &out.generator, &error));
  REFUSES(autoscheme_generator_create(h->context, h->skeleton, h->options, NULL, &error));
  REFUSES(autoscheme_generator_plan(NULL, h->calibration, &out.plan, &error));
  REFUSES(autoscheme_generator_plan(h->generator, NULL, &out.plan, &error));
  REFUSES(autoscheme_generator_plan(h->generator, h->calibration, NULL, &error));
  REFUSES(autoscheme_generator_score(NULL, h->calibration, &out.scores, &error));
  REFUSES(autoscheme_generator_score(h->generator, NULL, &out.scores, &error));
  REFUSES(autoscheme_generator_score(h->generator, h->calibration, NULL, &error));
  REFUSES(autoscheme_generator_select(NULL, h->scores, avg_bits, 1, &out.recipes, &error));
  REFUSES(autoscheme_generator_select(h->generator, NULL, avg_bits, 1, &out.recipes, &error));
  REFUSES(autoscheme_generator_select(h->generator, h->scores, NULL, 1, &out.recipes, &error));
  REFUSES(autoscheme_generator_select(h->generator, h->scores, avg_bits, 1, NULL, &error));
  REFUSES(autoscheme_generator_run(NULL, h->calibration, &out.scores, &out.recipes, &error));
  REFUSES(autoscheme_generator_run(h->generator, NULL, &out.scores, &out.recipes, &error));
  REFUSES(autoscheme_generator_run(h->generator, h->calibration, &out.scores, NULL, &error));
  REFUSES(autoscheme_generator_get_stats(NULL, &s.stats, &error));
  REFUSES(autoscheme_generator_get_stats(h->generator, NULL, &error));
  REFUSES(autoscheme_plan_get_info(NULL, &s.plan_info, &error));
  REFUSES(autoscheme_plan_get_info(h->plan, NULL, &error));
  REFUSES(autoscheme_plan_get_item(NULL, 0, &s.plan_item, &error));
  REFUSES(autoscheme_plan_get_item(h->plan, 0, NULL, &error));
  REFUSES(autoscheme_plan_get_vram_item(NULL, 0, &s.plan_item, &error));
  REFUSES(autoscheme_plan_get_vram_item(h->plan, 0, NULL, &error));
  REFUSES(autoscheme_plan_json(NULL, &out.text, &out.length, &error));
  REFUSES(autoscheme_plan_json(h->plan, NULL, &out.length, &error));
  REFUSES(autoscheme_check_outputs(NULL, NULL, 0, NULL, 0, &error));
  REFUSES(autoscheme_check_outputs(h->context, NULL, 1, NULL, 0, &error));
  REFUSES(autoscheme_check_outputs(h->context, NULL, 0, NULL, 1, &error));
  REFUSES(autoscheme_check_outputs(h->context, no_paths, 1, NULL, 0, &error));
  REFUSES(autoscheme_check_outputs(h->context, NULL, 0, no_paths, 1, &error));
  REFUSES(autoscheme_scores_load(NULL, "/nonexistent/x", &out.scores, &error));
  REFUSES(autoscheme_scores_load(h->context, NULL, &out.scores, &error));
  REFUSES(autoscheme_scores_load(h->context, "/nonexistent/x", NULL, &error));
  REFUSES(autoscheme_scores_save(NULL, "/nonexistent/x", &error));
  REFUSES(autoscheme_scores_save(h->scores, NULL, &error));
  REFUSES(autoscheme_scores_json(NULL, &out.text, &out.length, &error));
  REFUSES(autoscheme_scores_json(h->scores, NULL, &out.length, &error));
  REFUSES(autoscheme_scores_get_info(NULL, &s.scores_info, &error));
  REFUSES(autoscheme_scores_get_info(h->scores, NULL, &error));
  REFUSES(autoscheme_scores_get_scheme(NULL, 0, &s.scheme_info, &error));
  REFUSES(autoscheme_scores_get_scheme(h->scores, 0, NULL, &error));
  REFUSES(autoscheme_scores_get_layer(NULL, 0, &s.layer_info, &error));
  REFUSES(autoscheme_scores_get_layer(h->scores, 0, NULL, &error));
  REFUSES(autoscheme_scores_get_loss(NULL, 0, 0, &out.f64, &out.other_f64, &error));
  REFUSES(autoscheme_scores_select(NULL, h->options, avg_bits, 1, &out.recipes, &error));
  REFUSES(autoscheme_scores_select(h->scores, h->options, NULL, 1, &out.recipes, &error));
  REFUSES(autoscheme_scores_select(h->scores, h->options, avg_bits, 1, NULL, &error));
  REFUSES(autoscheme_scores_pareto(NULL, h->options, &out.pareto, &error));
  REFUSES(autoscheme_scores_pareto(h->scores, h->options, NULL, &error));
  REFUSES(autoscheme_pareto_get_info(NULL, &s.pareto_info, &error));
  REFUSES(autoscheme_pareto_get_info(h->pareto, NULL, &error));
  REFUSES(autoscheme_pareto_get_point(NULL, 0, &s.pareto_point, &error));
  REFUSES(autoscheme_pareto_get_point(h->pareto, 0, NULL, &error));
  REFUSES(autoscheme_pareto_json(h->pareto, NULL, &out.length, &error));
  REFUSES(autoscheme_pareto_save(h->pareto, NULL, &error));
  REFUSES(autoscheme_pareto_json(NULL, &out.text, &out.length, &error));
  REFUSES(autoscheme_pareto_save(NULL, "front.json", &error));
  autoscheme_pareto_free(NULL);
  REFUSES(autoscheme_recipes_get_info(NULL, 0, &s.recipe_info, &error));
  REFUSES(autoscheme_recipes_get_info(h->recipes, 0, NULL, &error));
  REFUSES(autoscheme_recipes_get_layer(NULL, 0, 0, &out.text, &s.scheme_info, &out.i32, &error));
  REFUSES(autoscheme_generator_plan_refine(NULL, h->calibration, 4, &out.plan, &error));
  REFUSES(autoscheme_generator_plan_refine(h->generator, NULL, 4, &out.plan, &error));
  REFUSES(autoscheme_generator_plan_refine(h->generator, h->calibration, 4, NULL, &error));
  REFUSES(autoscheme_generator_get_refine_stats(NULL, &s.stats, &error));
  REFUSES(autoscheme_generator_get_refine_stats(h->generator, NULL, &error));
  REFUSES(autoscheme_generator_refine(NULL, h->scores, h->calibration, 4, h->recipes, &error));
  REFUSES(autoscheme_generator_refine(h->generator, NULL, h->calibration, 4, h->recipes, &error));
  REFUSES(autoscheme_generator_refine(h->generator, h->scores, NULL, 4, h->recipes, &error));
  REFUSES(autoscheme_generator_refine(h->generator, h->scores, h->calibration, 4, NULL, &error));
  REFUSES(autoscheme_recipes_get_refined(NULL, 0, &s.refined_info, &error));
  REFUSES(autoscheme_recipes_get_refined(h->recipes, 0, NULL, &error));
  REFUSES(autoscheme_generator_plan_verify(NULL, h->calibration, &out.plan, &error));
  REFUSES(autoscheme_generator_plan_verify(h->generator, NULL, &out.plan, &error));
  REFUSES(autoscheme_generator_plan_verify(h->generator, h->calibration, NULL, &error));
  REFUSES(autoscheme_generator_get_verify_stats(NULL, &s.stats, &error));
  REFUSES(autoscheme_generator_get_verify_stats(h->generator, NULL, &error));
  REFUSES(autoscheme_generator_score_until_stable(NULL, h->calibration, &out.scores, &error));
  REFUSES(autoscheme_generator_score_until_stable(h->generator, NULL, &out.scores, &error));
  REFUSES(autoscheme_generator_score_until_stable(h->generator, h->calibration, NULL, &error));
  REFUSES(autoscheme_generator_verify(NULL, h->scores, h->calibration, h->recipes, &error));
  REFUSES(autoscheme_generator_verify(h->generator, NULL, h->calibration, h->recipes, &error));
  REFUSES(autoscheme_generator_verify(h->generator, h->scores, NULL, h->recipes, &error));
  REFUSES(autoscheme_generator_verify(h->generator, h->scores, h->calibration, NULL, &error));
  REFUSES(autoscheme_recipes_get_verified(NULL, 0, &s.verified_info, &error));
  REFUSES(autoscheme_recipes_get_verified(h->recipes, 0, NULL, &error));
  REFUSES(autoscheme_recipes_get_uniform(NULL, 0, 0, &s.uniform_info, &error));
  REFUSES(autoscheme_recipes_get_uniform(h->recipes, 0, 0, NULL, &error));
  REFUSES(autoscheme_recipes_find_layer(NULL, 0, "W4A16", &out.i64, &error));
  REFUSES(autoscheme_recipes_find_layer(h->recipes, 0, NULL, &out.i64, &error));
  REFUSES(autoscheme_recipes_find_layer(h->recipes, 0, "W4A16", NULL, &error));
  REFUSES(autoscheme_recipes_json(NULL, &out.text, &out.length, &error));
  REFUSES(autoscheme_recipes_json(h->recipes, NULL, &out.length, &error));
  REFUSES(autoscheme_recipes_save(NULL, "/nonexistent/x", &error));
  REFUSES(autoscheme_recipes_save(h->recipes, NULL, &error));
  REFUSES(autoscheme_recipes_load(NULL, "/nonexistent/x", &out.recipes, &error));
  REFUSES(autoscheme_recipes_load(h->context, NULL, &out.recipes, &error));
  REFUSES(autoscheme_recipes_load(h->context, "/nonexistent/x", NULL, &error));
  REFUSES(autoscheme_evaluate(NULL, h->skeleton, h->options, h->calibration, NULL, NULL, 0, &out.evaluation, &error));
  REFUSES(autoscheme_evaluate(h->context, NULL, h->options, h->calibration, NULL, NULL, 0, &out.evaluation, &error));
  REFUSES(autoscheme_evaluate(h->context, h->skeleton, NULL, h->calibration, NULL, NULL, 0, &out.evaluation, &error));
  REFUSES(autoscheme_evaluate(h->context, h->skeleton, h->options, NULL, NULL, NULL, 0, &out.evaluation, &error));
  REFUSES(
      autoscheme_evaluate(h->context, h->skeleton, h->options, h->calibration, NULL, NULL, 1, &out.evaluation, &error));
  REFUSES(autoscheme_evaluate(h->context, h->skeleton, h->options, h->calibration, NULL, NULL, 0, NULL, &error));
  REFUSES(autoscheme_evaluation_get_info(NULL, &s.evaluation_info, &error));
  REFUSES(autoscheme_evaluation_get_info(h->evaluation, NULL, &error));
  REFUSES(autoscheme_evaluation_get_recipe(NULL, 0, &s.recipe_evaluation, &error));
  REFUSES(autoscheme_evaluation_get_recipe(h->evaluation, 0, NULL, &error));
  REFUSES(autoscheme_evaluation_get_worst(NULL, 0, 0, &out.i64, NULL, &out.f64, &error));
  REFUSES(autoscheme_evaluation_get_stats(NULL, &s.stats, &error));
  REFUSES(autoscheme_evaluation_get_stats(h->evaluation, NULL, &error));
  REFUSES(autoscheme_evaluation_json(NULL, &out.text, &out.length, &error));
  REFUSES(autoscheme_evaluation_json(h->evaluation, NULL, &out.length, &error));
  REFUSES(autoscheme_evaluation_save(NULL, "/nonexistent/x", &error));
  REFUSES(autoscheme_evaluation_save(h->evaluation, NULL, &error));
  REFUSES(autoscheme_streamer_create(NULL, h->skeleton, h->options, order, 1, &out.streamer, &error));
  REFUSES(autoscheme_streamer_create(h->context, NULL, h->options, order, 1, &out.streamer, &error));
  REFUSES(autoscheme_streamer_create(h->context, h->skeleton, h->options, NULL, 1, &out.streamer, &error));
  REFUSES(autoscheme_streamer_create(h->context, h->skeleton, h->options, order, 1, NULL, &error));
  REFUSES(autoscheme_streamer_next(NULL, &s.step, &error));
  REFUSES(autoscheme_streamer_get_tensor_info(NULL, 0, &s.tensor_info, &error));
  REFUSES(autoscheme_streamer_get_tensor_info(h->streamer, 0, NULL, &error));
  REFUSES(autoscheme_streamer_get_tensor(NULL, 0, &out.tensor, &error));
  REFUSES(autoscheme_streamer_get_tensor(h->streamer, 0, NULL, &error));
  REFUSES(autoscheme_streamer_get_stats(NULL, &s.streamer_stats, &error));
  REFUSES(autoscheme_streamer_get_stats(h->streamer, NULL, &error));
  REFUSES(autoscheme_offload_create(NULL, h->skeleton, h->options, &callbacks, NULL, NULL, &out.offload, &error));
  REFUSES(autoscheme_offload_create(h->context, NULL, h->options, &callbacks, NULL, NULL, &out.offload, &error));
  REFUSES(autoscheme_offload_create(h->context, h->skeleton, h->options, NULL, NULL, NULL, &out.offload, &error));
  REFUSES(autoscheme_offload_create(h->context, h->skeleton, h->options, &callbacks, NULL, NULL, NULL, &error));
  REFUSES(autoscheme_offload_manage(NULL, "W4A16", AUTOSCHEME_DTYPE_F32, shape, 1, &error));
  REFUSES(autoscheme_offload_manage(h->offload, NULL, AUTOSCHEME_DTYPE_F32, shape, 1, &error));
  REFUSES(autoscheme_offload_manage(h->offload, "W4A16", AUTOSCHEME_DTYPE_F32, NULL, 1, &error));
  REFUSES(autoscheme_offload_release(NULL, names, 1, &error));
  REFUSES(autoscheme_offload_release(h->offload, NULL, 1, &error));
  REFUSES(autoscheme_offload_reload(NULL, names, 1, &error));
  REFUSES(autoscheme_offload_reload(h->offload, NULL, 1, &error));
  REFUSES(autoscheme_offload_get_info(NULL, &s.offload_info, &error));
  REFUSES(autoscheme_offload_get_info(h->offload, NULL, &error));
  REFUSES(autoscheme_offload_release(h->offload, no_name, 1, &error)); /* a NULL among the names */
  return failures;
}

/* Failures of other kinds than a NULL. */
static int failed(struct handles* h) {
  int failures = 0;
  struct infos s;
  struct outs out;
  const int32_t ids32[1] = {-1};
  const int64_t ids64[1] = {-1};
  const int64_t shape[1] = {-1};
  const int64_t order[1] = {7};
  const double avg_bits[1] = {0.5};
  const char* unknown[1] = {"x"};
  const autoscheme_offload_callbacks callbacks = {sizeof callbacks, give, drop, NULL};
  autoscheme_options* options = NULL;
  make_infos(&s);
  CHECK_C(autoscheme_options_create(&options, NULL) == AUTOSCHEME_OK);
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE, autoscheme_scheme_get(-1, &s.scheme_info, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT, autoscheme_scheme_find("x", &s.scheme_info, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT, autoscheme_scheme_why_unsuited("x", 64, 64, &out.text, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT, autoscheme_options_get_i64(options, 1, &out.i64, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT,
             autoscheme_options_get_i64(options, AUTOSCHEME_OPTION_SCHEMES, &out.i64, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT,
             autoscheme_options_get_f64(options, AUTOSCHEME_OPTION_SCHEMES, &out.f64, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT, autoscheme_options_get_str(options, 1, &out.text, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT, autoscheme_option_describe(1, &s.option_info, &error));
  FAILS_WITH(AUTOSCHEME_NOT_FOUND, autoscheme_skeleton_open(h->context, "/nonexistent/x", &out.skeleton, &error));
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE, autoscheme_skeleton_get_block(h->skeleton, 99, &s.block_info, &error));
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE, autoscheme_skeleton_get_layer(h->skeleton, 99, &s.layer_info, &error));
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE, autoscheme_skeleton_get_tensor(h->skeleton, 99, &s.tensor_info, &error));
  FAILS_WITH(AUTOSCHEME_NOT_FOUND, autoscheme_calibration_load(h->context, "/nonexistent/x", &out.calibration, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT, autoscheme_calibration_from_i32(ids32, 1, 1, &out.calibration, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT, autoscheme_calibration_from_i64(ids64, 1, 1, &out.calibration, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT,
             autoscheme_calibration_truncate(h->calibration, 99, 1, &out.calibration, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT,
             autoscheme_generator_create(h->context, h->skeleton, options, &out.generator, &error));
  FAILS_WITH(AUTOSCHEME_FAILED_PRECONDITION,
             autoscheme_generator_score(h->busy_generator, h->calibration, &out.scores, &error));
  FAILS_WITH(AUTOSCHEME_FAILED_PRECONDITION,
             autoscheme_generator_run(h->busy_generator, h->calibration, &out.scores, &out.recipes, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT,
             autoscheme_generator_plan(h->generator, h->long_calibration, &out.plan, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT,
             autoscheme_generator_select(h->generator, h->scores, avg_bits, 1, &out.recipes, &error));
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE, autoscheme_plan_get_item(h->plan, 99, &s.plan_item, &error));
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE, autoscheme_plan_get_vram_item(h->plan, 0, &s.plan_item, &error));
  FAILS_WITH(AUTOSCHEME_NOT_FOUND, autoscheme_scores_load(h->context, "/nonexistent/x", &out.scores, &error));
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE, autoscheme_scores_get_scheme(h->scores, 99, &s.scheme_info, &error));
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE, autoscheme_scores_get_layer(h->scores, 99, &s.layer_info, &error));
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE, autoscheme_scores_get_loss(h->scores, 0, 99, &out.f64, &out.other_f64, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT, autoscheme_scores_select(h->scores, NULL, avg_bits, 1, &out.recipes, &error));
  CHECK_C(autoscheme_options_set_str(options, AUTOSCHEME_OPTION_SCHEMES, "W3A16", NULL) == AUTOSCHEME_OK);
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT, autoscheme_scores_pareto(h->scores, options, &out.pareto, &error));
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE, autoscheme_pareto_get_point(h->pareto, -1, &s.pareto_point, &error));
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE, autoscheme_recipes_get_info(h->recipes, 99, &s.recipe_info, &error));
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE,
             autoscheme_recipes_get_layer(h->recipes, 0, 99, &out.text, &s.scheme_info, &out.i32, &error));
  FAILS_WITH(AUTOSCHEME_NOT_FOUND, autoscheme_recipes_find_layer(h->recipes, 0, "x", &out.i64, &error));
  FAILS_WITH(AUTOSCHEME_NOT_FOUND, autoscheme_recipes_load(h->context, "/nonexistent/x", &out.recipes, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT, autoscheme_evaluate(h->context, h->skeleton, h->options, h->long_calibration,
                                                              NULL, NULL, 0, &out.evaluation, &error));
  FAILS_WITH(AUTOSCHEME_FAILED_PRECONDITION,
             autoscheme_evaluate(h->stream_context, h->skeleton, h->options, h->calibration, NULL, NULL, 0,
                                 &out.evaluation, &error));
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE,
             autoscheme_evaluation_get_recipe(h->evaluation, 99, &s.recipe_evaluation, &error));
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE,
             autoscheme_evaluation_get_worst(h->evaluation, 0, 0, &out.i64, NULL, &out.f64, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT,
             autoscheme_streamer_create(h->context, h->skeleton, NULL, order, 1, &out.streamer, &error));
  FAILS_WITH(AUTOSCHEME_FAILED_PRECONDITION,
             autoscheme_streamer_create(h->stream_context, h->skeleton, NULL, NULL, 0, &out.streamer, &error));
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE, autoscheme_streamer_get_tensor_info(h->streamer, 99, &s.tensor_info, &error));
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE, autoscheme_streamer_get_tensor(h->streamer, 99, &out.tensor, &error));
  CHECK_C(autoscheme_streamer_next(h->streamer, NULL, NULL) == AUTOSCHEME_OK);
  FAILS_WITH(AUTOSCHEME_OUT_OF_RANGE, autoscheme_streamer_next(h->streamer, &s.step, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT,
             autoscheme_offload_create(h->context, h->skeleton, NULL, &callbacks, NULL, NULL, &out.offload, &error));
  FAILS_WITH(AUTOSCHEME_INVALID_ARGUMENT,
             autoscheme_offload_manage(h->offload, "x", AUTOSCHEME_DTYPE_F32, shape, 1, &error));
  FAILS_WITH(AUTOSCHEME_NOT_FOUND, autoscheme_offload_release(h->offload, unknown, 1, &error));
  autoscheme_options_free(options);
  return failures;
}

/* Functions that have no status: they do nothing, or say nothing. */
static int ignored(void) {
  int failures = 0;
  autoscheme_error_free(NULL);
  autoscheme_context_free(NULL);
  autoscheme_options_free(NULL);
  autoscheme_skeleton_free(NULL);
  autoscheme_calibration_free(NULL);
  autoscheme_generator_free(NULL);
  autoscheme_plan_free(NULL);
  autoscheme_scores_free(NULL);
  autoscheme_recipes_free(NULL);
  autoscheme_evaluation_free(NULL);
  autoscheme_streamer_free(NULL);
  autoscheme_offload_free(NULL);
  autoscheme_cancel(NULL);
  CHECK_C(autoscheme_error_code(NULL) == AUTOSCHEME_OK);
  CHECK_C(strcmp(autoscheme_error_message(NULL), "") == 0);
  CHECK_C(autoscheme_error_callback_value(NULL) == 0);
  CHECK_C(autoscheme_option_find(NULL) == 0);
  CHECK_C(autoscheme_recipes_count(NULL) == 0);
  CHECK_C(autoscheme_evaluation_note(NULL, 0) == NULL);
  CHECK_C(autoscheme_offload_is_resident(NULL, "x") == 0);
  CHECK_C(autoscheme_context_create(NULL, NULL) == AUTOSCHEME_INVALID_ARGUMENT); /* no place for the error either */
  return failures;
}

int null_argument_failures(const char* model, const char* tokens) {
  struct handles h;
  int failures = make_handles(&h, model, tokens);
  if (failures == 0) failures += refused(&h, model) + failed(&h) + ignored();
  if (failures == 0) {
    CHECK_C(autoscheme_offload_is_resident(h.offload, NULL) == 0);
    autoscheme_scores_free(h.scores);
    h.scores = NULL;
    CHECK_C(autoscheme_generator_score(h.generator, h.calibration, &h.scores, NULL) == AUTOSCHEME_OK); /* still good */
  }
  free_handles(&h);
  return failures;
}
