/* The C interface from beginning to end: open a model, score it, choose schemes, print the recipe.
 *
 *     score_c MODEL_DIR TOKENS.json SCHEMES AVG_BITS
 *     score_c models/smollm2_135m tokens.json W3A16,W4A16,W8A16 4.5
 */
#include <autoscheme.h>
#include <stdio.h>

/* Everything that has to be given back. */
struct job {
  autoscheme_context* context;
  autoscheme_skeleton* model;
  autoscheme_calibration* tokens;
  autoscheme_options* options;
  autoscheme_generator* generator;
  autoscheme_recipes* recipes;
  autoscheme_error* error;
};

static int32_t on_progress(void* user_data, const autoscheme_progress* progress) {
  (void)user_data;
  fprintf(stderr, "%s %lld/%lld\n", progress->stage, (long long)progress->done, (long long)progress->total);
  return 0; /* go on */
}

static autoscheme_status run(struct job* job, char** argv) {
  autoscheme_status status;
  autoscheme_error** error = &job->error;
  if ((status = autoscheme_context_create(&job->context, error)) != AUTOSCHEME_OK) return status;
  if ((status = autoscheme_context_set_progress(job->context, on_progress, NULL, NULL, error)) != AUTOSCHEME_OK) {
    return status;
  }
  if ((status = autoscheme_skeleton_open(job->context, argv[1], &job->model, error)) != AUTOSCHEME_OK) return status;
  if ((status = autoscheme_calibration_load(job->context, argv[2], &job->tokens, error)) != AUTOSCHEME_OK) {
    return status;
  }
  if ((status = autoscheme_options_create(&job->options, error)) != AUTOSCHEME_OK) return status;
  if ((status = autoscheme_options_set_str(job->options, AUTOSCHEME_OPTION_SCHEMES, argv[3], error)) != AUTOSCHEME_OK) {
    return status;
  }
  if ((status = autoscheme_options_set_str(job->options, AUTOSCHEME_OPTION_AVG_BITS, argv[4], error)) !=
      AUTOSCHEME_OK) {
    return status;
  }
  if ((status = autoscheme_generator_create(job->context, job->model, job->options, &job->generator, error)) !=
      AUTOSCHEME_OK) {
    return status;
  }
  return autoscheme_generator_run(job->generator, job->tokens, NULL, &job->recipes, error);
}

static autoscheme_status print(const autoscheme_recipes* recipes, autoscheme_error** error) {
  autoscheme_recipe_info recipe;
  autoscheme_scheme_info scheme;
  autoscheme_status status;
  const char* layer;
  int64_t i;
  recipe.struct_size = sizeof recipe;
  scheme.struct_size = sizeof scheme;
  if ((status = autoscheme_recipes_get_info(recipes, 0, &recipe, error)) != AUTOSCHEME_OK) return status;
  for (i = 0; i < recipe.layer_count; ++i) {
    status = autoscheme_recipes_get_layer(recipes, 0, i, &layer, &scheme, NULL, error);
    if (status != AUTOSCHEME_OK) return status;
    printf("%-48s %s\n", layer, scheme.name);
  }
  printf("%.4f bits per weight, predicted loss %g\n", recipe.avg_bits, recipe.loss);
  return AUTOSCHEME_OK;
}

int main(int argc, char** argv) {
  struct job job = {NULL, NULL, NULL, NULL, NULL, NULL, NULL};
  autoscheme_status status;
  if (argc != 5) {
    fprintf(stderr, "usage: score_c MODEL_DIR TOKENS.json SCHEMES AVG_BITS\n");
    return 2;
  }
  status = run(&job, argv);
  if (status == AUTOSCHEME_OK) status = print(job.recipes, &job.error);
  if (status != AUTOSCHEME_OK) {
    fprintf(stderr, "%s: %s\n", autoscheme_status_name(status), autoscheme_error_message(job.error));
  }
  autoscheme_error_free(job.error);
  autoscheme_recipes_free(job.recipes);
  autoscheme_generator_free(job.generator);
  autoscheme_options_free(job.options);
  autoscheme_calibration_free(job.tokens);
  autoscheme_skeleton_free(job.model);
  autoscheme_context_free(job.context);
  return status == AUTOSCHEME_OK ? 0 : 1;
}
