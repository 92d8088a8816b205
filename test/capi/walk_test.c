/* What a C host does from beginning to end, and the promises it leans on: parents may be freed first. */
#include <autoscheme.h>
#include <stdlib.h>
#include <string.h>

#include "c_tests.h"
#include "check.h"

static int32_t count_steps(void* user_data, const autoscheme_progress* progress) {
  if (progress->struct_size >= sizeof *progress && progress->done <= progress->total) ++*(int*)user_data;
  return 0;
}

/* Looks at what refinement found for the first recipe, if it was made. */
static int look_at_refined(const autoscheme_recipes* recipes, int is_refined) {
  int failures = 0;
  autoscheme_refined_info refined;
  refined.struct_size = sizeof refined;
  if (!is_refined) {
    CHECK_C(autoscheme_recipes_get_refined(recipes, 0, &refined, NULL) == AUTOSCHEME_NOT_FOUND);
    return failures;
  }
  CHECK_C(autoscheme_recipes_get_refined(recipes, 0, &refined, NULL) == AUTOSCHEME_OK);
  CHECK_C(refined.nsamples >= 1 && refined.seqlen > 1 && refined.evaluations > 1 && refined.evaluations <= 5);
  CHECK_C(refined.kl > 0 && refined.avg_bits_before > 4);
  CHECK_C(refined.changed ? refined.kl < refined.kl_before : refined.kl == refined.kl_before);
  CHECK_C(autoscheme_recipes_get_refined(recipes, 1, &refined, NULL) == AUTOSCHEME_OUT_OF_RANGE);
  return failures;
}

/* Looks at what verification measured of the first recipe, if it was made. */
static int look_at_verified(const autoscheme_recipes* recipes, int is_verified) {
  int failures = 0;
  autoscheme_verified_info verified;
  autoscheme_uniform_info uniform;
  verified.struct_size = sizeof verified, uniform.struct_size = sizeof uniform;
  if (!is_verified) {
    CHECK_C(autoscheme_recipes_get_verified(recipes, 0, &verified, NULL) == AUTOSCHEME_NOT_FOUND);
    CHECK_C(autoscheme_recipes_get_uniform(recipes, 0, 0, &uniform, NULL) == AUTOSCHEME_NOT_FOUND);
    return failures;
  }
  CHECK_C(autoscheme_recipes_get_verified(recipes, 0, &verified, NULL) == AUTOSCHEME_OK);
  CHECK_C(verified.nsamples >= 1 && verified.kl > 0 && verified.uniform_count == 1);
  CHECK_C(autoscheme_recipes_get_uniform(recipes, 0, 0, &uniform, NULL) == AUTOSCHEME_OK);
  CHECK_C(strcmp(uniform.scheme, "W4A16") == 0 && uniform.avg_bits < 6 && uniform.kl > 0);
  CHECK_C((verified.taken != NULL) == (uniform.kl < verified.kl));
  CHECK_C(autoscheme_recipes_get_uniform(recipes, 0, 1, &uniform, NULL) == AUTOSCHEME_OUT_OF_RANGE);
  CHECK_C(autoscheme_recipes_get_verified(recipes, 1, &verified, NULL) == AUTOSCHEME_OUT_OF_RANGE);
  return failures;
}

static int look_at_recipe(const autoscheme_recipes* recipes) {
  int failures = 0;
  int64_t i, at = -1, bits = 0;
  autoscheme_recipe_info info;
  info.struct_size = sizeof info;
  CHECK_C(autoscheme_recipes_count(recipes) == 1);
  CHECK_C(autoscheme_recipes_get_info(recipes, 0, &info, NULL) == AUTOSCHEME_OK);
  CHECK_C(info.target_avg_bits == 6);
  CHECK_C(info.avg_bits <= 6 && info.avg_bits > 4);
  CHECK_C(info.layer_count == 14);
  for (i = 0; i < info.layer_count; ++i) {
    const char* name = NULL;
    int32_t fixed = -1;
    autoscheme_scheme_info scheme;
    scheme.struct_size = sizeof scheme;
    CHECK_C(autoscheme_recipes_get_layer(recipes, 0, i, &name, &scheme, &fixed, NULL) == AUTOSCHEME_OK);
    CHECK_C(strcmp(scheme.name, "W4A16") == 0 || strcmp(scheme.name, "W8A16") == 0);
    CHECK_C(scheme.bits == 4 || scheme.bits == 8);
    CHECK_C(fixed == 0);
    CHECK_C(autoscheme_recipes_find_layer(recipes, 0, name, &at, NULL) == AUTOSCHEME_OK && at == i);
    bits += scheme.bits;
  }
  CHECK_C(bits > 4 * info.layer_count && bits < 8 * info.layer_count);
  CHECK_C(autoscheme_recipes_find_layer(recipes, 0, "no.such.layer", &at, NULL) == AUTOSCHEME_NOT_FOUND);
  CHECK_C(autoscheme_recipes_get_info(recipes, 1, &info, NULL) == AUTOSCHEME_OUT_OF_RANGE);
  return failures;
}

int walk_failures(const char* model, const char* tokens, const char* recipe_path) {
  int failures = 0, steps = 0;
  autoscheme_context* context = NULL;
  autoscheme_skeleton* skeleton = NULL;
  autoscheme_calibration* calibration = NULL;
  autoscheme_options* options = NULL;
  autoscheme_calibration *scored = NULL, *held_back = NULL;
  autoscheme_generator* generator = NULL;
  autoscheme_scores* scores = NULL;
  autoscheme_recipes* recipes = NULL;
  autoscheme_plan* plan = NULL;
  autoscheme_error* error = NULL;
  autoscheme_stats stats;
  const char* json = NULL;
  size_t length = 0;
  stats.struct_size = sizeof stats;

  CHECK_C(autoscheme_context_create(&context, &error) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_context_set_progress(context, count_steps, &steps, NULL, &error) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_skeleton_open(context, model, &skeleton, &error) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_calibration_load(context, tokens, &calibration, &error) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_create(&options, &error) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_set_str(options, AUTOSCHEME_OPTION_SCHEMES, "W4A16,W8A16", &error) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_set_i64(options, AUTOSCHEME_OPTION_THREADS, 1, &error) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_set_f64(options, AUTOSCHEME_OPTION_AVG_BITS, 6, &error) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_generator_create(context, skeleton, options, &generator, &error) == AUTOSCHEME_OK);
  autoscheme_context_free(context);
  autoscheme_skeleton_free(skeleton);
  autoscheme_options_free(options);

  CHECK_C(autoscheme_calibration_hold_back(calibration, 0, &scored, &held_back, &error) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_generator_run(generator, scored, &scores, &recipes, &error) == AUTOSCHEME_OK);
  failures += look_at_refined(recipes, 0);
  CHECK_C(autoscheme_generator_plan_refine(generator, held_back, 0, &plan, NULL) == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK_C(autoscheme_generator_refine(generator, scores, held_back, 1001, recipes, NULL) ==
          AUTOSCHEME_INVALID_ARGUMENT);
  CHECK_C(autoscheme_generator_plan_refine(generator, held_back, 4, &plan, &error) == AUTOSCHEME_OK);
  autoscheme_plan_free(plan);
  CHECK_C(autoscheme_generator_refine(generator, scores, held_back, 4, recipes, &error) == AUTOSCHEME_OK);
  failures += look_at_refined(recipes, 1);
  CHECK_C(autoscheme_generator_get_refine_stats(generator, &stats, &error) == AUTOSCHEME_OK);
  CHECK_C(stats.read_bytes > 0 && stats.read_bytes == stats.planned_read_bytes);
  failures += look_at_verified(recipes, 0);
  CHECK_C(autoscheme_generator_verify(generator, scores, held_back, recipes, &error) == AUTOSCHEME_OK);
  failures += look_at_verified(recipes, 1);
  autoscheme_calibration_free(scored);
  autoscheme_calibration_free(held_back);
  autoscheme_scores_free(scores);
  CHECK_C(error == NULL);
  CHECK_C(steps > 4);
  CHECK_C(autoscheme_generator_get_stats(generator, &stats, &error) == AUTOSCHEME_OK);
  CHECK_C(stats.read_bytes > 0 && stats.read_bytes == stats.planned_read_bytes);
  autoscheme_generator_free(generator);
  autoscheme_calibration_free(calibration);

  failures += look_at_recipe(recipes);
  CHECK_C(autoscheme_recipes_json(recipes, &json, &length, &error) == AUTOSCHEME_OK);
  CHECK_C(json != NULL && strlen(json) == length && strstr(json, "autoscheme-recipe") != NULL);
  CHECK_C(autoscheme_recipes_save(recipes, recipe_path, &error) == AUTOSCHEME_OK);
  autoscheme_recipes_free(recipes);
  autoscheme_error_free(error);
  return failures;
}

/* Looks at the figures of the recipe and of a scheme for all layers. */
static int look_at_evaluation(const autoscheme_evaluation* evaluation) {
  int failures = 0;
  autoscheme_evaluation_info info;
  autoscheme_recipe_evaluation mine, w8;
  autoscheme_stats stats;
  const char* json = NULL;
  int64_t row = -1, position = -1;
  double kl = 0;
  info.struct_size = sizeof info, mine.struct_size = w8.struct_size = sizeof mine, stats.struct_size = sizeof stats;
  CHECK_C(autoscheme_evaluation_get_info(evaluation, &info, NULL) == AUTOSCHEME_OK);
  CHECK_C(info.recipe_count == 2 && info.note_count == 0 && info.error_over_rows == 1);
  CHECK_C(autoscheme_evaluation_get_recipe(evaluation, 0, &mine, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_evaluation_get_recipe(evaluation, 1, &w8, NULL) == AUTOSCHEME_OK);
  CHECK_C(strcmp(mine.name, "mine") == 0 && strcmp(w8.name, "W8A16") == 0);
  CHECK_C(mine.avg_bits <= 6 && w8.avg_bits > 8 && mine.kl > w8.kl && w8.kl > 0);
  CHECK_C(mine.kl_error > 0 && mine.top1 <= 1 && mine.perplexity > 1 && info.perplexity > 1);
  CHECK_C(mine.row_kl != NULL && mine.position_kl == NULL && mine.worst_count == 2);
  CHECK_C(autoscheme_evaluation_get_worst(evaluation, 0, 0, &row, &position, &kl, NULL) == AUTOSCHEME_OK);
  CHECK_C(row >= 0 && row < info.nsamples && position >= 0 && position < info.seqlen - 1 && kl >= mine.kl);
  CHECK_C(autoscheme_evaluation_note(evaluation, 0) == NULL);
  CHECK_C(autoscheme_evaluation_get_stats(evaluation, &stats, NULL) == AUTOSCHEME_OK);
  CHECK_C(stats.read_bytes > 0 && stats.read_bytes == stats.planned_read_bytes && stats.backward_s == 0);
  CHECK_C(autoscheme_evaluation_json(evaluation, &json, NULL, NULL) == AUTOSCHEME_OK);
  CHECK_C(json != NULL && strstr(json, "autoscheme-eval") != NULL);
  return failures;
}

int evaluation_failures(const char* model, const char* tokens, const char* recipe_path, const char* path) {
  int failures = 0;
  autoscheme_context* context = NULL;
  autoscheme_skeleton* skeleton = NULL;
  autoscheme_calibration* calibration = NULL;
  autoscheme_options* options = NULL;
  autoscheme_recipes* recipes = NULL;
  autoscheme_evaluation* evaluation = NULL;
  const char* name = "mine";
  CHECK_C(autoscheme_context_create(&context, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_skeleton_open(context, model, &skeleton, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_calibration_load(context, tokens, &calibration, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_recipes_load(context, recipe_path, &recipes, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_create(&options, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_set_str(options, AUTOSCHEME_OPTION_SCHEMES, "W8A16", NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_set_i64(options, AUTOSCHEME_OPTION_THREADS, 1, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_options_set_i64(options, AUTOSCHEME_OPTION_WORST_TOKENS, 2, NULL) == AUTOSCHEME_OK);
  CHECK_C(autoscheme_evaluate(context, skeleton, options, calibration, (const autoscheme_recipes* const*)&recipes,
                              &name, 1, &evaluation, NULL) == AUTOSCHEME_OK);
  autoscheme_recipes_free(recipes);
  autoscheme_options_free(options);
  autoscheme_calibration_free(calibration);
  autoscheme_skeleton_free(skeleton);
  autoscheme_context_free(context);
  failures += look_at_evaluation(evaluation);
  CHECK_C(autoscheme_evaluation_save(evaluation, path, NULL) == AUTOSCHEME_OK);
  autoscheme_evaluation_free(evaluation);
  return failures;
}
