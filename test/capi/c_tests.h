/* Tests in C, called from Catch2 cases. Each returns the number of checks that failed, having printed them. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/* Sizes and offsets of every visible struct, and the numbers of all constants. */
int layout_failures(void);
/* NULL for every pointer of every function. `model` and `tokens` are a good model folder and calibration file. */
int null_argument_failures(const char* model, const char* tokens);
/* Callers of other versions, whose structs are smaller or larger. */
int struct_failures(const char* model, const char* tokens);
/* From opening the model to the saved recipe, as a C host would do it, freeing parents first. */
int walk_failures(const char* model, const char* tokens, const char* recipe_path);
/* Evaluates that recipe and a scheme, and saves the result at `path`. */
int evaluation_failures(const char* model, const char* tokens, const char* recipe_path, const char* path);

#ifdef __cplusplus
}
#endif
