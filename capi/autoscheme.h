/*
 * autoscheme: which quantization scheme for which layer of a language model.
 *
 * This header is the whole C interface and its manual. It is C99, and C11 and C++17 as well; it includes nothing but
 * <stddef.h> and <stdint.h>.
 *
 * ====================================================================================================================
 * Introduction
 * ====================================================================================================================
 *
 * Give autoscheme a model folder (config.json and safetensors files), some calibration token ids, a menu of schemes and
 * an average number of bits per weight. It streams the model block by block, measures for every layer and every scheme
 * how much the model's loss would move, and picks one scheme for each layer so that the sum is least within the budget.
 *
 *     autoscheme_context* context = NULL;
 *     autoscheme_skeleton* model = NULL;
 *     autoscheme_options* options = NULL;
 *     autoscheme_calibration* tokens = NULL;
 *     autoscheme_generator* generator = NULL;
 *     autoscheme_recipes* recipes = NULL;
 *     autoscheme_error* error = NULL;
 *     if (autoscheme_context_create(&context, &error) ||
 *         autoscheme_skeleton_open(context, "path/to/model", &model, &error) ||
 *         autoscheme_calibration_load(context, "tokens.json", &tokens, &error) ||
 *         autoscheme_options_create(&options, &error) ||
 *         autoscheme_options_set_str(options, AUTOSCHEME_OPTION_SCHEMES, "W2A16,W4A16,W8A16", &error) ||
 *         autoscheme_options_set_f64(options, AUTOSCHEME_OPTION_AVG_BITS, 4.5, &error) ||
 *         autoscheme_generator_create(context, model, options, &generator, &error) ||
 *         autoscheme_generator_run(generator, tokens, NULL, &recipes, &error) ||
 *         autoscheme_recipes_save(recipes, "recipe.json", &error)) {
 *       fprintf(stderr, "%s\n", autoscheme_error_message(error));
 *     }
 *     (free all of them, in any order; see examples/score.c)
 *
 * The parts can be used alone: a skeleton is a model's structure without its weights, a streamer brings blocks as
 * DLPack tensors, an offload manager frees and brings back a host's own weights, and scores can be stored and solved
 * again for other budgets without the model.
 *
 * ====================================================================================================================
 * Conventions
 * ====================================================================================================================
 *
 * Ownership   What comes through an out-parameter is owned by the caller and given back with the matching _free. What
 *             comes as a return value, or as a pointer inside a struct, is borrowed; the comment says until when. Every
 *             _free takes NULL and cannot fail. Handles keep alive what they were made from, so they may be freed in
 *             any order.
 * Errors      A function that can fail returns autoscheme_status: 0 is success. Its last parameter receives an error
 *             object with the code and one line of text. It may be NULL; otherwise it is always written: NULL on
 *             success, on failure an object owned by the caller. A failed call sets its other out-parameters to NULL or
 *             0, whatever the failure, but leaves a struct as it was (autoscheme_generator_run may still hand out
 * scores); its handles stay usable. Each function names its likely codes; every function can also return
 *             AUTOSCHEME_INVALID_ARGUMENT (a NULL or meaningless argument), AUTOSCHEME_RESOURCE_EXHAUSTED (no memory
 *             left) and AUTOSCHEME_INTERNAL (a defect of the library). Nothing here exits, aborts, prints or installs a
 *             handler.
 * Threads     Each handle type has its own line. "Immutable" means any thread at any time.
 * Long calls  Marked [long]. One at a time on a context; a second one gets AUTOSCHEME_FAILED_PRECONDITION. They report
 *             progress and stop for autoscheme_cancel. Use a context for each if they shall run side by side.
 * Callbacks   Return 0 to go on, anything else to stop; the call then fails with AUTOSCHEME_CALLBACK_FAILED and the
 *             error carries the value. They come with user_data and user_data_free, which may be NULL;
 *             user_data_free(user_data) runs exactly once, when the library is done with the callback or at once if the
 *             registration fails. A callback must not start a long call on the same context
 *             (AUTOSCHEME_FAILED_PRECONDITION), must not longjmp, and must not free the handle whose call it runs in. A
 *             C++ exception from it becomes AUTOSCHEME_INTERNAL; from a log callback it is ignored.
 * Fork        A context belongs to the process that created it. A process that is forked off may ask and save what is
 *             immutable, but every call that takes the context, a generator, a streamer or an offload manager made with
 *             it, and every [long] call, is AUTOSCHEME_FAILED_PRECONDITION there; _free returns at once and leaves the
 *             memory, and callbacks and user_data_free do not run. The child may create a context of its own. With
 * that, _plan, _score and _run work unless the thread that called fork had computed before, with more than one thread,
 * in the parent: they are FAILED_PRECONDITION then, and work from a new thread. (If it was not autoscheme that computed
 * there but the host itself by OpenMP or LibTorch, they may hang: fork before.) Strings     UTF-8, NUL-terminated.
 * Paths are what the operating system takes. Messages, of errors and in the log, are one line of valid UTF-8 without
 * control characters, whatever a file, a path or a name in them holds: what would be more is escaped. Strings in
 * structs are as they are in the files. Structs     The few visible structs are passed by pointer and begin with
 * struct_size. Set it to sizeof before the call. Later versions only append fields. A struct that the library fills: it
 * writes the fields that fit and zeroes whatever lies beyond those it knows. A struct that the library reads: missing
 * fields are zero, unknown fields must be zero. A struct_size below the size that the struct had in the first version
 * which had it is AUTOSCHEME_INVALID_ARGUMENT. Versions    "since" is the version that first had it. Functions are
 * never changed or removed while AUTOSCHEME_ABI_VERSION, which is also the shared library's soname, stays the same.
 * Unloading   Do not dlclose the library: LibTorch, which it is linked to, cannot be unloaded.
 */
#ifndef AUTOSCHEME_CAPI_AUTOSCHEME_H_
#define AUTOSCHEME_CAPI_AUTOSCHEME_H_

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) || defined(__clang__)
#define AUTOSCHEME_API __attribute__((visibility("default")))
#define AUTOSCHEME_CHECKED __attribute__((visibility("default"), warn_unused_result))
#else
#define AUTOSCHEME_API
#define AUTOSCHEME_CHECKED
#endif

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ====================================================================================================================
 * Versions
 * ====================================================================================================================
 */
#define AUTOSCHEME_VERSION_MAJOR 0
#define AUTOSCHEME_VERSION_MINOR 1
#define AUTOSCHEME_VERSION_PATCH 0
#define AUTOSCHEME_VERSION "0.1.0"
/* Raised by every change that breaks a compiled program, also before version 1. */
#define AUTOSCHEME_ABI_VERSION 1

/* Version of the library that runs, "0.1.0". Borrowed forever. Any thread. since 0.1 */
AUTOSCHEME_API const char* autoscheme_version(void);

/* AUTOSCHEME_ABI_VERSION of the library that runs. A program that loads it by dlopen compares this first. Any thread.
 * since 0.1 */
AUTOSCHEME_API int32_t autoscheme_abi_version(void);

/* What the library that runs can do, as one line for people: the LibTorch that it is built with, and the devices that
 * option "device" may name, with the file of the plugin that computes there. Nothing is loaded to find out, so it does
 * not say whether this machine has such a device. As it was at the first call; "" where memory is short. Borrowed
 * forever. Any thread. since 0.1 */
AUTOSCHEME_API const char* autoscheme_build_info(void);

/*
 * ====================================================================================================================
 * Status and errors
 * ====================================================================================================================
 */

/* One of the constants below; others may come in later versions, so treat an unknown one as failure. */
typedef int32_t autoscheme_status;

/* The numbers are those of google.rpc.Code and never change. */
enum {
  AUTOSCHEME_OK = 0,
  AUTOSCHEME_CANCELLED = 1, /* autoscheme_cancel was called */
  AUTOSCHEME_UNKNOWN = 2,
  AUTOSCHEME_INVALID_ARGUMENT = 3, /* an argument, option, id or pattern is wrong */
  AUTOSCHEME_DEADLINE_EXCEEDED = 4,
  AUTOSCHEME_NOT_FOUND = 5, /* a file, folder, tensor or name does not exist */
  AUTOSCHEME_ALREADY_EXISTS = 6,
  AUTOSCHEME_PERMISSION_DENIED = 7,
  AUTOSCHEME_RESOURCE_EXHAUSTED = 8,  /* memory, disk space or the memory budget; says what would do */
  AUTOSCHEME_FAILED_PRECONDITION = 9, /* not now: another long call runs, or a call is out of order */
  AUTOSCHEME_ABORTED = 10,
  AUTOSCHEME_OUT_OF_RANGE = 11,  /* an index is past the end; the streamer has no further step */
  AUTOSCHEME_UNIMPLEMENTED = 12, /* an architecture, scheme or device that this build does not know */
  AUTOSCHEME_INTERNAL = 13,      /* a defect of the library; please report it */
  AUTOSCHEME_UNAVAILABLE = 14,   /* the operating system failed to read or write */
  AUTOSCHEME_DATA_LOSS = 15,     /* a malformed, truncated or changed file; weights that are not numbers */
  AUTOSCHEME_UNAUTHENTICATED = 16,
  AUTOSCHEME_CALLBACK_FAILED = 100 /* a callback of the host returned non-zero */
};

/* What went wrong: code and one line. Immutable. */
typedef struct autoscheme_error autoscheme_error;

/* "INVALID_ARGUMENT" for 3, and so on; "UNKNOWN_STATUS" for a number without a name. Borrowed forever. Any thread.
 * since 0.1 */
AUTOSCHEME_API const char* autoscheme_status_name(autoscheme_status status);

/* The status that the failed call returned; AUTOSCHEME_OK for NULL. since 0.1 */
AUTOSCHEME_API autoscheme_status autoscheme_error_code(const autoscheme_error* error);

/* What, where, which numbers, what to do: one line without a line feed. Borrowed until the error is freed; "" for NULL.
 * since 0.1 */
AUTOSCHEME_API const char* autoscheme_error_message(const autoscheme_error* error);

/* What the host's callback returned, if the code is AUTOSCHEME_CALLBACK_FAILED; else 0. since 0.1 */
AUTOSCHEME_API int32_t autoscheme_error_callback_value(const autoscheme_error* error);

/* since 0.1 */
AUTOSCHEME_API void autoscheme_error_free(autoscheme_error* error);

/*
 * ====================================================================================================================
 * Context: log, progress, cancel, aliases
 * ====================================================================================================================
 */

/* What every call reports to. Silent until callbacks are set.
 * Threads: any. One [long] call at a time. */
typedef struct autoscheme_context autoscheme_context;

/* since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_context_create(autoscheme_context** out, autoscheme_error** error);

/* Handles made with the context keep what they need of it, so it may go first. since 0.1 */
AUTOSCHEME_API void autoscheme_context_free(autoscheme_context* context);

/* Levels of autoscheme_log_message. */
enum { AUTOSCHEME_LOG_INFO = 0, AUTOSCHEME_LOG_WARNING = 1 };

/* Borrowed for the call of the callback, with all it points to. */
typedef struct autoscheme_log_message {
  size_t struct_size;
  int32_t level;    /* AUTOSCHEME_LOG_* */
  int32_t reserved; /* 0 */
  const char* text; /* one line */
} autoscheme_log_message;

typedef int32_t (*autoscheme_log_fn)(void* user_data, const autoscheme_log_message* message);

/* Sends messages to `fn`; NULL makes the context silent again. Replaces the callback that was set before.
 * The callback may run on a worker thread, and on several at a time. A non-zero return stops the [long] call that runs,
 * at its next step, with CALLBACK_FAILED; outside of one it is ignored, and so it is by a call that fails for another
 * reason, which is what that call then reports, or that has no further step. Any thread. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_context_set_log(autoscheme_context* context, autoscheme_log_fn fn,
                                                                void* user_data, void (*user_data_free)(void*),
                                                                autoscheme_error** error);

/* One step of a [long] call. Borrowed for the call of the callback, with all it points to. */
typedef struct autoscheme_progress {
  size_t struct_size;
  const char* stage;  /* "forward", "head", "backward" or "select"; later versions may add others,
                       * autoscheme_generator_refine and _verify have their own */
  int64_t done;       /* steps of this stage that are finished; a step is a block or a tile of the head */
  int64_t total;      /* steps of this stage */
  int64_t bytes_read; /* read from the checkpoint since the call began */
  double elapsed_s;   /* since the call began */
} autoscheme_progress;

typedef int32_t (*autoscheme_progress_fn)(void* user_data, const autoscheme_progress* progress);

/* Calls `fn` at least once for each block; NULL ends that. Replaces the callback that was set before. It runs on the
 * thread that made the [long] call. Any thread. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_context_set_progress(autoscheme_context* context,
                                                                     autoscheme_progress_fn fn, void* user_data,
                                                                     void (*user_data_free)(void*),
                                                                     autoscheme_error** error);

/* Models that are others under another name, for every autoscheme_skeleton_open of the context that comes after. `json`
 * is copied: an object, or a list of them, each naming what may be an alias of what stands before it:
 *
 *     {"model_type": "mymodel", "as": "llama", "rename": {"their_key": "our_key"}, "set": {"key": value}}
 *
 * A config.json of that model_type is read as one of an `as`, after keys of it are renamed, one after the other, and
 * others set; docs/formats.md has the details. Replaces what was set before; NULL takes all away. A skeleton's
 * model_type is the alias's. DATA_LOSS, with line and column, if it is no JSON; INVALID_ARGUMENT for an unknown or
 * missing member, an unknown `as`, and a model_type that is there twice. After a failure what was set before stays.
 * Any thread. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_context_set_aliases(autoscheme_context* context, const char* json,
                                                                    autoscheme_error** error);

/* Asks the [long] call that runs on the context to stop; it returns AUTOSCHEME_CANCELLED within one block and leaves no
 * file behind. Other calls do not stop for it. A request is forgotten when the next [long] call begins: cancelling an
 * idle context does nothing, and after a cancelled call the context runs again. A host that must not lose a request
 * made just before a call begins returns non-zero from its progress callback. Any thread; also from a signal handler.
 * NULL is ignored. since 0.1 */
AUTOSCHEME_API void autoscheme_cancel(autoscheme_context* context);

/*
 * ====================================================================================================================
 * Schemes: the catalogue
 * ====================================================================================================================
 */

/* In the integer fields of autoscheme_scheme_info: the scheme does not say. */
#define AUTOSCHEME_UNSET INT32_MIN

/* A quantization scheme. Bits of 16 and more mean: not quantized.
 * Groups share a scale: group_rows == 0 means group_size elements along a row (> 0), the whole row (-1) or the whole
 * tensor (0); group_rows > 0 means a tile of group_rows x group_size elements. */
typedef struct autoscheme_scheme_info {
  size_t struct_size;
  const char* name;      /* "W4A16", "MXFP4", ... */
  const char* data_type; /* "int", "mx_fp", ... as the AutoRound project spells them */
  int32_t bits;
  int32_t group_size;
  int32_t group_rows;
  int32_t sym;               /* 1 or 0 */
  const char* act_data_type; /* data type of the activations; NULL if unset */
  int32_t act_bits;          /* this and all below: AUTOSCHEME_UNSET if unset */
  int32_t act_group_size;
  int32_t act_group_rows;
  int32_t act_sym;     /* 1 or 0 */
  int32_t act_dynamic; /* 1 or 0 */
  int32_t super_bits;  /* bits of the scales of scales */
  int32_t super_group_size;
  int32_t reserved; /* 0 */
} autoscheme_scheme_info;

/* Number of presets. Any thread. since 0.1 */
AUTOSCHEME_API int64_t autoscheme_scheme_count(void);

/* The preset at `index`. Its strings are borrowed forever. OUT_OF_RANGE. Any thread. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_scheme_get(int64_t index, autoscheme_scheme_info* info,
                                                           autoscheme_error** error);

/* The preset of that name; case does not matter and aliases are known. Its strings are borrowed forever.
 * INVALID_ARGUMENT for an unknown name. Any thread. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_scheme_find(const char* name, autoscheme_scheme_info* info,
                                                            autoscheme_error** error);

/* Why runtimes cannot hold a linear layer of that shape under the preset of that name, "groups do not divide the
 * rows"; *why is NULL if they can. Such a layer stays at 16 bits, or another type stands in (docs/algorithm.md). For
 * people: later versions may say it in other words. Borrowed forever. INVALID_ARGUMENT for an unknown name. Any thread.
 * since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_scheme_why_unsuited(const char* name, int64_t out_features,
                                                                    int64_t in_features, const char** why,
                                                                    autoscheme_error** error);

/*
 * ====================================================================================================================
 * Options
 * ====================================================================================================================
 *
 * An option has an id, a name, a type, bounds, a default and a help text, all of which can be asked, so that a host can
 * build its own flags from them. An unknown id or name is an error, never ignored. Ids are never reused.
 */

/* Settings of a generator, a streamer, an offload manager or a selection; each takes those that concern it and copies
 * them. Threads: one at a time. */
typedef struct autoscheme_options autoscheme_options;

/* Ids. What each means is in its help text; autoscheme_option_describe returns it. */
enum {
  /* 100..: what may be chosen, and what for */
  AUTOSCHEME_OPTION_SCHEMES = 100,              /* str   the menu: "W2A16,W4A16,W8A16"; needed for scoring */
  AUTOSCHEME_OPTION_AVG_BITS = 101,             /* list  targets in bits per weight: "4.5" or "3.5,4.5" */
  AUTOSCHEME_OPTION_IGNORE_SCALE_ZP_BITS = 102, /* bool  count weights only, not scales and zero points */
  AUTOSCHEME_OPTION_SHARED_LAYERS = 103,        /* str   layers that get one scheme: "q_proj,k_proj;up,gate", "vllm" */
  AUTOSCHEME_OPTION_IGNORE_LAYERS = 104,        /* str   layers that stay at 16 bits, comma separated */
  AUTOSCHEME_OPTION_LAYER_CONFIG = 105,         /* str   JSON object: layer or pattern -> scheme, fixed beforehand */
  AUTOSCHEME_OPTION_QUANT_LM_HEAD = 106,        /* bool  score and budget the output head too */
  AUTOSCHEME_OPTION_TARGET_SIZE = 107,          /* str   targets as sizes of the stored model: "4.1GiB,800MiB" */
  AUTOSCHEME_OPTION_REFERENCE_RULES = 108, /* bool  score, charge and choose as AutoRound does; for comparison only */
  AUTOSCHEME_OPTION_SCORER = 109,          /* str   name of a scorer; autoscheme_option_describe lists them */
  /* 200..: calibration */
  AUTOSCHEME_OPTION_BATCH_SIZE = 200,   /* i64   rows in a batch; part of the definition of the scores */
  AUTOSCHEME_OPTION_IMATRIX_FILE = 201, /* str   importance matrix made by llama-imatrix, for k-quants */
  /* 300..: resources */
  AUTOSCHEME_OPTION_MAX_RAM_BYTES = 300,  /* bytes a promise: never more than this; 0 = a frugal one,
                                                   -1 or "free" = no limit (see autoscheme_generator_plan) */
  AUTOSCHEME_OPTION_PROCESS_BUDGET = 301, /* bool  max_ram_bytes is the peak RSS of the process */
  AUTOSCHEME_OPTION_WORK_DIR = 302,       /* str   folder for spill files */
  AUTOSCHEME_OPTION_THREADS = 303,        /* i64   threads that compute; 0 = as the process is set,
                                                   -1 = the same, within the CPU quota of the cgroups */
  AUTOSCHEME_OPTION_IO_ENGINE = 304,      /* str   how weights are read: "auto", "direct", "buffered" */
  AUTOSCHEME_OPTION_NO_SPILL = 305,       /* bool  scoring writes nothing to disk, at the price of time */
  AUTOSCHEME_OPTION_MAX_VRAM_BYTES = 306, /* bytes a promise like max_ram_bytes, for the memory of a GPU, the context
                                                   of the process included; 0 = nine tenths of what is free there */
  AUTOSCHEME_OPTION_PLAN_ONLY = 307,      /* bool  the generator is for plans alone, and its device need not be there:
                                                   max_vram_bytes must then be given */
  /* 400..: computing */
  AUTOSCHEME_OPTION_DTYPE = 400,  /* str   "default" (tf32 on a GPU, else float32), "float32", "tf32" (GPU), "bfloat16",
                                           "mixed" or "auto" */
  AUTOSCHEME_OPTION_DEVICE = 401, /* str   "cpu", "cuda", "cuda:1", "cuda:0,cuda:1" (docs/cuda.md) */
  /* 500..: streamer */
  AUTOSCHEME_OPTION_STREAM_SLOTS = 500, /* i64   steps in memory at a time; 1 = no read-ahead */
  /* 600..: offload manager */
  AUTOSCHEME_OPTION_OFFLOAD_MODE = 600, /* str   "clean" or "offload" */
  /* 700..: evaluation */
  AUTOSCHEME_OPTION_WORST_TOKENS = 700, /* i64   tokens to list for each recipe, those of the largest KL; 0 = none */
  AUTOSCHEME_OPTION_BY_POSITION = 701   /* bool  also give the mean KL at each position of the rows */
};

/* Types of options. */
enum {
  AUTOSCHEME_TYPE_I64 = 1,
  AUTOSCHEME_TYPE_F64 = 2,
  AUTOSCHEME_TYPE_STR = 3,
  AUTOSCHEME_TYPE_BOOL = 4,    /* set_i64 with 0 or 1 */
  AUTOSCHEME_TYPE_BYTES = 5,   /* set_i64 with a number of bytes; as text also "400MiB", "1.5GB", "2G" (2GiB) */
  AUTOSCHEME_TYPE_F64_LIST = 6 /* set_f64 with one number; as text "3.5,4.5" */
};

/* since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_options_create(autoscheme_options** out, autoscheme_error** error);

/* since 0.1 */
AUTOSCHEME_API void autoscheme_options_free(autoscheme_options* options);

/* For I64, BOOL and BYTES. INVALID_ARGUMENT for an unknown id, another type, a value out of bounds. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_options_set_i64(autoscheme_options* options, int32_t id, int64_t value,
                                                                autoscheme_error** error);

/* For F64 and F64_LIST. INVALID_ARGUMENT as above, and for a value that is not finite. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_options_set_f64(autoscheme_options* options, int32_t id, double value,
                                                                autoscheme_error** error);

/* For every type: parses the text as that type. Copies it. INVALID_ARGUMENT for text that the option cannot take: an
 * unknown scheme, a size without a known unit, a bool other than 0, 1, true, false. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_options_set_str(autoscheme_options* options, int32_t id,
                                                                const char* value, autoscheme_error** error);

/* The value, default included. For I64, BOOL and BYTES. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_options_get_i64(const autoscheme_options* options, int32_t id,
                                                                int64_t* value, autoscheme_error** error);

/* The value, default included. For F64. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_options_get_f64(const autoscheme_options* options, int32_t id,
                                                                double* value, autoscheme_error** error);

/* The value as text that autoscheme_options_set_str takes, for every type. Borrowed until the option is set again or
 * the options are freed. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_options_get_str(const autoscheme_options* options, int32_t id,
                                                                const char** value, autoscheme_error** error);

/* What an option is. Strings are borrowed forever. Bounds are inclusive; those of another type than the option's are
 * 0. */
typedef struct autoscheme_option_info {
  size_t struct_size;
  int32_t id;
  int32_t type;              /* AUTOSCHEME_TYPE_* */
  const char* name;          /* "max_ram_bytes" */
  const char* help;          /* one or two sentences */
  const char* since;         /* version that first had it */
  const char* default_value; /* as text that set_str takes; "" for none */
  const char* choices;       /* comma separated, if the text must be one of them; else NULL */
  int64_t min_i64, max_i64;  /* limits of I64, BOOL and BYTES */
  double min_f64, max_f64;   /* limits of F64, and of each item of F64_LIST */
} autoscheme_option_info;

/* Number of options. Any thread. since 0.1 */
AUTOSCHEME_API int64_t autoscheme_option_count(void);

/* The id of the option at `index`, in the order of ids; 0 past the end. Any thread. since 0.1 */
AUTOSCHEME_API int32_t autoscheme_option_at(int64_t index);

/* The id of the option of that name; 0 if there is none. Any thread. since 0.1 */
AUTOSCHEME_API int32_t autoscheme_option_find(const char* name);

/* INVALID_ARGUMENT for an unknown id. Any thread. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_option_describe(int32_t id, autoscheme_option_info* info,
                                                                autoscheme_error** error);

/*
 * ====================================================================================================================
 * Skeleton: a model without its weights
 * ====================================================================================================================
 */

/* Element types of tensors: those of the safetensors format. */
enum {
  AUTOSCHEME_DTYPE_BOOL = 1,
  AUTOSCHEME_DTYPE_F4 = 2,
  AUTOSCHEME_DTYPE_F6_E2M3 = 3,
  AUTOSCHEME_DTYPE_F6_E3M2 = 4,
  AUTOSCHEME_DTYPE_U8 = 5,
  AUTOSCHEME_DTYPE_I8 = 6,
  AUTOSCHEME_DTYPE_F8_E5M2 = 7,
  AUTOSCHEME_DTYPE_F8_E4M3 = 8,
  AUTOSCHEME_DTYPE_F8_E8M0 = 9,
  AUTOSCHEME_DTYPE_F8_E4M3FNUZ = 10,
  AUTOSCHEME_DTYPE_F8_E5M2FNUZ = 11,
  AUTOSCHEME_DTYPE_I16 = 12,
  AUTOSCHEME_DTYPE_U16 = 13,
  AUTOSCHEME_DTYPE_F16 = 14,
  AUTOSCHEME_DTYPE_BF16 = 15,
  AUTOSCHEME_DTYPE_I32 = 16,
  AUTOSCHEME_DTYPE_U32 = 17,
  AUTOSCHEME_DTYPE_F32 = 18,
  AUTOSCHEME_DTYPE_C64 = 19,
  AUTOSCHEME_DTYPE_F64 = 20,
  AUTOSCHEME_DTYPE_I64 = 21,
  AUTOSCHEME_DTYPE_U64 = 22
};

/* "BF16" for AUTOSCHEME_DTYPE_BF16, and so on, as the format spells it; NULL for another number. Borrowed forever. Any
 * thread. since 0.1 */
AUTOSCHEME_API const char* autoscheme_dtype_name(int32_t dtype);

/* A model's structure, read from config.json and the headers of its tensor files. Immutable. */
typedef struct autoscheme_skeleton autoscheme_skeleton;

/* `model` is a folder, or a repo id ("org/name", or "org/name@revision" for a branch, tag or commit) that is looked up
 * in the local Hugging Face cache; no network is used. Reads no weight.
 * It may also be the path of a config.json (a file named *.json) whose weights need not be there. The skeleton then has
 * the tensors that the config asks for, in the type that it names (bfloat16, with a warning, where it names none), as
 * if they lay in one file; of a multimodal model those of the text decoder. _generator_plan and _generator_select take
 * it; what reads weights (_generator_score, _streamer_create, _offload_create in mode "clean") is FAILED_PRECONDITION.
 * NOT_FOUND (folder, config.json, shards; all that are missing are listed), DATA_LOSS (malformed or truncated file),
 * INVALID_ARGUMENT (a config field or a tensor's shape is wrong), UNIMPLEMENTED (unknown architecture, or a model that
 * is quantized already). Any thread. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_skeleton_open(autoscheme_context* context, const char* model,
                                                              autoscheme_skeleton** out, autoscheme_error** error);

/* since 0.1 */
AUTOSCHEME_API void autoscheme_skeleton_free(autoscheme_skeleton* skeleton);

/* Strings are borrowed until the skeleton is freed. */
typedef struct autoscheme_skeleton_info {
  size_t struct_size;
  const char* model;       /* as given to open */
  const char* directory;   /* the folder that was opened, or the config.json */
  const char* model_type;  /* "llama", "qwen3", ... */
  const char* fingerprint; /* hex; equal for equal structure */
  int64_t block_count;
  int64_t layer_count; /* linear layers of all blocks, and the head */
  int64_t tensor_count;
  int64_t hidden_size;
  int64_t vocab_size;
  int64_t max_positions; /* longest sequence the model was made for; 0 if it does not say */
  int64_t total_params;
  uint64_t total_bytes;    /* sum over all tensors */
  int32_t tied_head;       /* 1 if the head is the embedding */
  int32_t has_weights;     /* 0 if a config.json alone was opened */
  int64_t untouched_count; /* so many of the tensors, the last ones, are parts of a multimodal checkpoint that the text
                              decoder does not read */
} autoscheme_skeleton_info;

/* since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_skeleton_get_info(const autoscheme_skeleton* skeleton,
                                                                  autoscheme_skeleton_info* info,
                                                                  autoscheme_error** error);

/* A decoder block: what is read together and computed together. Strings as in autoscheme_skeleton_info. */
typedef struct autoscheme_block_info {
  size_t struct_size;
  const char* name;    /* "model.layers.0" */
  uint64_t bytes;      /* sum over its tensors */
  int64_t first_layer; /* its layers are first_layer .. first_layer + layer_count - 1 */
  int64_t layer_count;
  int64_t first_tensor; /* its tensors, likewise */
  int64_t tensor_count;
} autoscheme_block_info;

/* OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_skeleton_get_block(const autoscheme_skeleton* skeleton, int64_t block,
                                                                   autoscheme_block_info* info,
                                                                   autoscheme_error** error);

/* A linear layer: weight [out_features, in_features]. Strings are borrowed until the handle that it was asked of is
 * freed. */
typedef struct autoscheme_layer_info {
  size_t struct_size;
  const char* name; /* "model.layers.0.self_attn.q_proj" */
  int64_t out_features;
  int64_t in_features;
  int64_t block;            /* index of its block; -1 outside the blocks */
  int32_t is_head;          /* 1 for the output head */
  int32_t has_bias;         /* 1 or 0; -1 if not known (scores do not say) */
  const char* fixed_scheme; /* scores: name of the scheme it was fixed to, NULL if it is free; skeleton: NULL */
  /* Why it stays as it is unless one asks for it: "tied to the embedding"; NULL for a layer of a block, and in scores.
   * Borrowed forever. */
  const char* reason;
  int32_t transposed; /* 1 if the weight is stored as [in_features, out_features]; 0 in scores */
  int32_t reserved;   /* 0 */
} autoscheme_layer_info;

/* Layers in the model's order, the head last. OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_skeleton_get_layer(const autoscheme_skeleton* skeleton, int64_t layer,
                                                                   autoscheme_layer_info* info,
                                                                   autoscheme_error** error);

/* A tensor of the checkpoint. Pointers are borrowed until the handle that it was asked of is freed. */
typedef struct autoscheme_tensor_info {
  size_t struct_size;
  const char* name; /* "model.layers.0.mlp.up_proj.weight" */
  int32_t dtype;    /* AUTOSCHEME_DTYPE_* */
  int32_t rank;
  const int64_t* shape; /* `rank` numbers, C order; NULL for a scalar */
  uint64_t bytes;
  uint64_t offset;  /* where its first byte lies in its shard file */
  int32_t shard;    /* index of the shard file; 0 too where a config.json alone was opened, which has none */
  int32_t reserved; /* 0 */
  int64_t block;    /* index of its block; -1 outside the blocks */
  int64_t position; /* in its block, in the order of computing, from 0; outside, 0 before the blocks, 1 behind them */
  int64_t layer;    /* index of the layer whose weight or bias it is; -1: of none */
  /* Why it is not quantized: "norm", "bias"; NULL for the weight of a block's layer. For people: later versions may say
   * it in other words. Borrowed forever. */
  const char* reason;
} autoscheme_tensor_info;

/* Tensors of the blocks in order, each block's by place in the file; then the embedding, the head if it is not tied,
 * the others (the final norm), and the untouched ones. OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_skeleton_get_tensor(const autoscheme_skeleton* skeleton, int64_t tensor,
                                                                    autoscheme_tensor_info* info,
                                                                    autoscheme_error** error);

/* The structure as JSON (docs/formats.md). Borrowed until the skeleton is freed; `length` may be NULL. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_skeleton_json(const autoscheme_skeleton* skeleton, const char** json,
                                                              size_t* length, autoscheme_error** error);

/* Number of the files that are read of a model, config.json, the index of shards if there is one and the shards, and
 * the path of each; 0 for NULL, NULL past the end. Borrowed until the skeleton is freed. since 0.1 */
AUTOSCHEME_API int64_t autoscheme_skeleton_file_count(const autoscheme_skeleton* skeleton);
AUTOSCHEME_API const char* autoscheme_skeleton_file_at(const autoscheme_skeleton* skeleton, int64_t index);

/* Number of the shards, and the file name of each, which autoscheme_tensor_info.shard indexes; 0 for NULL, NULL past
 * the end. Borrowed until the skeleton is freed. Any thread. since 0.1 */
AUTOSCHEME_API int64_t autoscheme_skeleton_shard_count(const autoscheme_skeleton* skeleton);
AUTOSCHEME_API const char* autoscheme_skeleton_shard_at(const autoscheme_skeleton* skeleton, int64_t index);

/* Number of architectures that can be opened, and the model_type of each ("llama"); NULL past the end. Borrowed
 * forever. Any thread. since 0.1 */
AUTOSCHEME_API int64_t autoscheme_model_type_count(void);
AUTOSCHEME_API const char* autoscheme_model_type_at(int64_t index);

/*
 * ====================================================================================================================
 * Calibration: the token ids that scoring runs on
 * ====================================================================================================================
 */

/* nsamples rows of seqlen token ids. Immutable. */
typedef struct autoscheme_calibration autoscheme_calibration;

/* Reads .json (a list of equally long lists of ids, an object whose "input_ids" is one, or a list of objects with
 * "input_ids"), .npy (int32 or int64, two dimensions) or .safetensors ("input_ids"), told apart by content. A mask,
 * labels and positions beside the ids must say that every token counts and is its own label; of what else is there a
 * warning tells. NOT_FOUND; INVALID_ARGUMENT with the row for ragged, empty, negative or over-large ids, for padding
 * and for labels that differ; UNIMPLEMENTED for files of other kinds, which the message names. Any thread. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_calibration_load(autoscheme_context* context, const char* path,
                                                                 autoscheme_calibration** out,
                                                                 autoscheme_error** error);

/* The first nsamples rows of a file and the first seqlen ids of each, and no more rows than max_tokens ids make; 0
 * stands for all. What stands beside the ids that are left out is not looked at, so that padding there is no obstacle.
 * Errors as above, and INVALID_ARGUMENT if there are fewer rows or ids. Any thread. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_calibration_load_part(autoscheme_context* context, const char* path,
                                                                      int64_t nsamples, int64_t seqlen,
                                                                      int64_t max_tokens, autoscheme_calibration** out,
                                                                      autoscheme_error** error);

/* Copies nsamples x seqlen ids, row after row. INVALID_ARGUMENT for none, or for an id that is negative or larger than
 * 2^31 - 1 (with its row and column). Any thread. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_calibration_from_i32(const int32_t* ids, int64_t nsamples,
                                                                     int64_t seqlen, autoscheme_calibration** out,
                                                                     autoscheme_error** error);
AUTOSCHEME_CHECKED autoscheme_status autoscheme_calibration_from_i64(const int64_t* ids, int64_t nsamples,
                                                                     int64_t seqlen, autoscheme_calibration** out,
                                                                     autoscheme_error** error);

/* A copy of the first nsamples rows and the first seqlen ids of each; 0 keeps all. INVALID_ARGUMENT if there are fewer.
 * Any thread. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_calibration_truncate(const autoscheme_calibration* calibration,
                                                                     int64_t nsamples, int64_t seqlen,
                                                                     autoscheme_calibration** out,
                                                                     autoscheme_error** error);

/* Divides the rows: a copy of the last `rows` of them, on which autoscheme_generator_verify measures what was chosen
 * without them, and one of the rest. 0: a quarter, at least one. INVALID_ARGUMENT if no row would stay. Any thread.
 * since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_calibration_hold_back(const autoscheme_calibration* calibration,
                                                                      int64_t rows, autoscheme_calibration** rest,
                                                                      autoscheme_calibration** held_back,
                                                                      autoscheme_error** error);

/* since 0.1 */
AUTOSCHEME_API void autoscheme_calibration_free(autoscheme_calibration* calibration);

/* Pointers are borrowed until the calibration is freed. */
typedef struct autoscheme_calibration_info {
  size_t struct_size;
  int64_t nsamples;
  int64_t seqlen;
  const int32_t* ids; /* nsamples x seqlen, row after row */
  const char* sha256; /* hex, over the ids as int64 little-endian */
} autoscheme_calibration_info;

/* since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_calibration_get_info(const autoscheme_calibration* calibration,
                                                                     autoscheme_calibration_info* info,
                                                                     autoscheme_error** error);

/*
 * ====================================================================================================================
 * Generator: plan, score, select
 * ====================================================================================================================
 */

/* Scores one model with one set of options. Threads: one at a time. */
typedef struct autoscheme_generator autoscheme_generator;
typedef struct autoscheme_plan autoscheme_plan;     /* immutable */
typedef struct autoscheme_scores autoscheme_scores; /* immutable */
typedef struct autoscheme_recipes autoscheme_recipes;
typedef struct autoscheme_pareto autoscheme_pareto; /* immutable */

/* Copies the options; needs AUTOSCHEME_OPTION_SCHEMES.
 * INVALID_ARGUMENT (a bad option, by name), UNIMPLEMENTED (a scheme or device that this build cannot run). since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_generator_create(autoscheme_context* context,
                                                                 const autoscheme_skeleton* skeleton,
                                                                 const autoscheme_options* options,
                                                                 autoscheme_generator** out, autoscheme_error** error);

/* since 0.1 */
AUTOSCHEME_API void autoscheme_generator_free(autoscheme_generator* generator);

/* What a run with this calibration will hold, read and write. Nothing of it is run, but for the time estimate matrices
 * are multiplied for a quarter of a second and up to 64 MiB of the checkpoint are read. With process_budget the plan
 * starts from what the process held when the generator was made, and counts on an allocator that gives freed buffers
 * above 1 MiB back to the system (the autoscheme program sets malloc so; the library leaves the host's as it is). With
 * max_ram_bytes 0 the budget is the larger of 1 GiB and what full speed needs without saved activations, but at most
 * half of what is free: the least of what the system has without swapping and of what the cgroups around the process
 * leave. If not even the least plan keeps to that half it is taken with a warning, as long as it needs no more than
 * what is free. With -1 there is no limit, and up to a quarter of what is free serves to save time. RESOURCE_EXHAUSTED
 * if max_ram_bytes cannot be kept; the message names a budget that would do. One that is more than what is free is a
 * warning with both numbers. INVALID_ARGUMENT for ids outside the vocabulary (row, column, id) or rows longer than the
 * model's positions. NOT_FOUND or PERMISSION_DENIED for a work_dir that takes no file, where the plan spills. Of a
 * config.json alone nothing is read, and the time estimate takes reading to run at 1.5 GB/s. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_generator_plan(const autoscheme_generator* generator,
                                                               const autoscheme_calibration* calibration,
                                                               autoscheme_plan** out, autoscheme_error** error);

/* [long] Measures every layer under every scheme of the menu.
 * Before any work: RESOURCE_EXHAUSTED and INVALID_ARGUMENT as in _plan, and INVALID_ARGUMENT for a target among the
 * generator's options (avg_bits, target_size) that no choice of schemes reaches. Later: DATA_LOSS for a shard that ends
 * early or weights that are not finite (tensor, count, first index); CANCELLED;
 * CALLBACK_FAILED; FAILED_PRECONDITION if the context or the generator is busy, or the skeleton has no weights.
 * since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_generator_score(autoscheme_generator* generator,
                                                                const autoscheme_calibration* calibration,
                                                                autoscheme_scores** out, autoscheme_error** error);

/* [long] _score by parts: the first batch, then as many rows as so far again and again, until what _select gives for
 * each target of the options has the scheme of before for all layers but such with at most 1% of the weights, or the
 * rows are used up; each step is told through the log. autoscheme_scores_get_info tells how many rows were used. The
 * scores are those of one run over these rows, but for k-quants that are weighed by what each part has collected. The
 * model is read once more for each step. Errors as _score and _select; INVALID_ARGUMENT without a target. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_generator_score_until_stable(autoscheme_generator* generator,
                                                                             const autoscheme_calibration* calibration,
                                                                             autoscheme_scores** out,
                                                                             autoscheme_error** error);

/* [long] One recipe for each of `count` targets, from scores made with this generator's options; `avg_bits` NULL and
 * `count` 0 takes AUTOSCHEME_OPTION_AVG_BITS and then AUTOSCHEME_OPTION_TARGET_SIZE. Never touches the model.
 * INVALID_ARGUMENT for a target out of reach (names the reachable range); DATA_LOSS if a layer has no finite loss.
 * since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_generator_select(const autoscheme_generator* generator,
                                                                 const autoscheme_scores* scores,
                                                                 const double* avg_bits, int64_t count,
                                                                 autoscheme_recipes** out, autoscheme_error** error);

/* What autoscheme_generator_refine would hold at most and read in all for as many recipes as the options have targets
 * (one if they have none), known before anything is scored; otherwise as autoscheme_generator_plan_verify. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_generator_plan_refine(const autoscheme_generator* generator,
                                                                      const autoscheme_calibration* held_back,
                                                                      int64_t evaluations, autoscheme_plan** out,
                                                                      autoscheme_error** error);

/* [long] Measures recipes near those of autoscheme_generator_select, `evaluations` (1 to 1000) further ones for each,
 * on rows that nothing was scored on: in up to three forward sweeps, each of which costs a product for every recipe in
 * it and one for full precision. What one sweep has measured corrects the losses by which the next one's recipes are
 * chosen (docs/scorers.md). The recipe whose KL is most surely below the choice's takes its place; where none is surely
 * below it, the choice stays. The recipes are changed in place: autoscheme_recipes_get_refined tells, and recipe.json
 * has it. Refine before autoscheme_generator_verify, which then compares what was found with uniform schemes. What it
 * will cost is logged before it begins. The same input gives the same recipes. Stages of the progress: "refine
 * forward", "refine head". Errors as autoscheme_evaluate, INVALID_ARGUMENT for another number of evaluations; nothing
 * is changed then. since 0.1
 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_generator_refine(autoscheme_generator* generator,
                                                                 const autoscheme_scores* scores,
                                                                 const autoscheme_calibration* held_back,
                                                                 int64_t evaluations, autoscheme_recipes* recipes,
                                                                 autoscheme_error** error);

/* What autoscheme_generator_verify would hold and read for as many recipes as the options have targets (one if they
 * have none), known before anything is scored; the estimated time is by assumed rates. Errors: as autoscheme_evaluate
 * before its work, so that rows or a budget that _verify would refuse cost no scoring. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_generator_plan_verify(const autoscheme_generator* generator,
                                                                      const autoscheme_calibration* held_back,
                                                                      autoscheme_plan** out, autoscheme_error** error);

/* [long] Measures recipes of autoscheme_generator_select on rows that nothing was scored on (else the figures flatter
 * them), and beside them the uniform recipe of every scheme of the menu that keeps to a recipe's target: all in one
 * forward sweep, which costs a product for each of them, and one for full precision, where the scoring cost three and
 * more. Where a uniform recipe moves the predictions less it takes the recipe's place. The recipes are changed in
 * place: autoscheme_recipes_get_verified tells, and recipe.json has it. k-quants are weighed by
 * AUTOSCHEME_OPTION_IMATRIX_FILE or, without one, by what this generator's last scoring collected; where neither is, a
 * message of the log says so. Stages of the progress: "verify forward", "verify head". Errors as autoscheme_evaluate;
 * nothing is changed then. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_generator_verify(autoscheme_generator* generator,
                                                                 const autoscheme_scores* scores,
                                                                 const autoscheme_calibration* held_back,
                                                                 autoscheme_recipes* recipes, autoscheme_error** error);

/* [long] _score and then _select for AUTOSCHEME_OPTION_AVG_BITS. `out_scores` may be NULL. On failure *out_scores is
 * not NULL if scoring had succeeded and what came after it failed: the selection, or a cancel or a callback during it.
 * The scores are then yours, as on success: save them, and select again. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_generator_run(autoscheme_generator* generator,
                                                              const autoscheme_calibration* calibration,
                                                              autoscheme_scores** out_scores, autoscheme_recipes** out,
                                                              autoscheme_error** error);

/* What the last scoring of a generator, or an evaluation, has cost. */
typedef struct autoscheme_stats {
  size_t struct_size;
  uint64_t planned_read_bytes; /* bytes of the checkpoint to be read */
  uint64_t read_bytes;
  uint64_t spill_bytes; /* written to spill files, rewritten records included */
  uint64_t planned_peak_bytes;
  uint64_t peak_rss_bytes; /* the process's peak (VmHWM) at the end; 0 if the system does not say */
  double forward_s;
  double head_s;
  double backward_s;
  double stall_s; /* waiting for the disk, part of the three above */
  double total_s;
  double product_s;        /* in matrix products, part of the three above */
  double product_flops;    /* multiplications and additions of those */
  uint64_t rss_anon_bytes; /* the process's at the end: memory of its own, and pages of files */
  uint64_t rss_file_bytes;
  uint64_t disk_read_bytes; /* by the process during the run: fetched from storage, and asked for by read calls */
  uint64_t read_call_bytes;
  const char* io_engine;       /* the one that read the blocks: "direct" or "buffered"; static */
  uint64_t planned_vram_bytes; /* what was promised of a GPU's memory; 0 on a CPU */
  uint64_t peak_vram_bytes;    /* what this process took of it at most: by the driver's count or, where that does not
                                * say, by how much less was free than when the run began, and the context as planned */
} autoscheme_stats;

/* All 0 before the first scoring, and the engine "buffered". since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_generator_get_stats(const autoscheme_generator* generator,
                                                                    autoscheme_stats* stats, autoscheme_error** error);

/* The same of the last autoscheme_generator_refine, over all its sweeps. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_generator_get_refine_stats(const autoscheme_generator* generator,
                                                                           autoscheme_stats* stats,
                                                                           autoscheme_error** error);

/* The same of the last autoscheme_generator_verify. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_generator_get_verify_stats(const autoscheme_generator* generator,
                                                                           autoscheme_stats* stats,
                                                                           autoscheme_error** error);

/*
 * ====================================================================================================================
 * Results
 * ====================================================================================================================
 */

/* ---- plan ---- */

/* since 0.1 */
AUTOSCHEME_API void autoscheme_plan_free(autoscheme_plan* plan);

typedef struct autoscheme_plan_info {
  size_t struct_size;
  uint64_t peak_bytes;   /* the promised peak: sum of the items */
  uint64_t least_bytes;  /* the smallest max_ram_bytes that is sure to do; with process_budget up to 4 MiB less may,
                          * since two starts of one program differ by as much */
  uint64_t read_bytes;   /* bytes of the checkpoint to be read */
  uint64_t spill_bytes;  /* size of the spill files; 0 if there are none */
  int64_t item_count;    /* what is in memory at the peak */
  int32_t inputs_in_ram; /* 1 if saved inputs lie in memory, 0 if in the spill file */
  int32_t reserved;      /* 0 */
  double flops;          /* multiplications and additions of the matrix products */
  double estimated_s;    /* for a machine of the speed that a short probe has found */
  /* What the plan chose. A unit is read, computed and differentiated as a whole: a block, or a sublayer of it (its
   * attention, its MLP). */
  int64_t units;
  int64_t slots;            /* units in memory at once while they stream; 1 = no read-ahead */
  int64_t micro_batch_rows; /* rows of a batch that are computed at once; scores do not depend on it */
  uint64_t tile_bytes;  /* size of a row tile, where not even one unit fits and weights are read at every use; else 0 */
  int64_t saved_units;  /* units whose activations stay, so that they are not computed twice */
  int64_t cached_units; /* units whose weights stay, so that they are not read twice */
  int64_t input_interval;    /* the input of every so many units is stored, those between are computed again; 1 = all */
  uint64_t budget_bytes;     /* what the peak keeps to; 0 = no limit */
  const char* budget_reason; /* whose number that is, in words: "as given", "half of what the system has free", ...;
                              * borrowed until the plan is freed */
  /* The same for a GPU's memory; 0 and empty on a CPU. */
  const char* device; /* "cpu", "cuda:0"; borrowed until the plan is freed, as the next */
  const char* vram_budget_reason;
  uint64_t vram_peak_bytes;
  uint64_t vram_least_bytes;
  uint64_t vram_budget_bytes;
  int64_t vram_item_count;
  int32_t inputs_in_vram; /* 1 if saved inputs lie there; else inputs_in_ram says where */
  int32_t reserved2;      /* 0 */
} autoscheme_plan_info;

/* since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_plan_get_info(const autoscheme_plan* plan, autoscheme_plan_info* info,
                                                              autoscheme_error** error);

typedef struct autoscheme_plan_item {
  size_t struct_size;
  const char* name; /* "weight slots", ...; borrowed until the plan is freed */
  uint64_t bytes;
} autoscheme_plan_item;

/* OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_plan_get_item(const autoscheme_plan* plan, int64_t index,
                                                              autoscheme_plan_item* item, autoscheme_error** error);

/* The same of a GPU's memory. OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_plan_get_vram_item(const autoscheme_plan* plan, int64_t index,
                                                                   autoscheme_plan_item* item,
                                                                   autoscheme_error** error);

/* The plan as JSON text. Borrowed until the plan is freed; `length` may be NULL. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_plan_json(const autoscheme_plan* plan, const char** json,
                                                          size_t* length, autoscheme_error** error);

/* ---- files of results ---- */

/* OK if results could be written now to all of `outputs` (by the _save functions), no two of them are one file
 * under two spellings, none is one of `inputs`, and none has a name by which its folder, a model's, would read it as
 * weights or config: to be asked before hours of work. Leaves everything as it is, and opens no device and no pipe.
 * Inputs need not exist. INVALID_ARGUMENT, NOT_FOUND (no such folder), PERMISSION_DENIED,
 * RESOURCE_EXHAUSTED. Any thread. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_check_outputs(autoscheme_context* context, const char* const* outputs,
                                                              int64_t output_count, const char* const* inputs,
                                                              int64_t input_count, autoscheme_error** error);

/* ---- scores ---- */

/* Reads scores.json (docs/formats.md). NOT_FOUND, DATA_LOSS. Any thread. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_scores_load(autoscheme_context* context, const char* path,
                                                            autoscheme_scores** out, autoscheme_error** error);

/* since 0.1 */
AUTOSCHEME_API void autoscheme_scores_free(autoscheme_scores* scores);

/* Writes scores.json; afterwards `path` holds either the old contents or the whole new ones. Links are followed, and
 * the file at their end is replaced, keeps its mode, and its owner where the system permits, but no access list (its
 * group then gets no more than everybody has); its other hard links keep the old contents. A character device, a pipe
 * (whose reader is waited for) and a descriptor of this process (/dev/stdout) are written to instead. INVALID_ARGUMENT
 * (a folder, a disk, a socket, a mount point), NOT_FOUND (no such folder), PERMISSION_DENIED, RESOURCE_EXHAUSTED (disk
 * full), UNAVAILABLE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_scores_save(const autoscheme_scores* scores, const char* path,
                                                            autoscheme_error** error);

/* The contents of scores.json. Borrowed until the scores are freed; `length` may be NULL. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_scores_json(const autoscheme_scores* scores, const char** json,
                                                            size_t* length, autoscheme_error** error);

/* Strings are borrowed until the scores are freed. */
typedef struct autoscheme_scores_info {
  size_t struct_size;
  const char* model;
  const char* model_type;
  const char* fingerprint; /* the skeleton's */
  const char* calibration_sha256;
  const char* dtype; /* data type that was computed in */
  int64_t nsamples;
  int64_t seqlen;
  int64_t batch_size;
  int64_t scheme_count;
  int64_t layer_count;
  int32_t tied_head; /* 1 or 0 */
  int32_t reserved;  /* 0 */
} autoscheme_scores_info;

/* since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_scores_get_info(const autoscheme_scores* scores,
                                                                autoscheme_scores_info* info, autoscheme_error** error);

/* A scheme of the menu. Its strings are borrowed until the scores are freed. OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_scores_get_scheme(const autoscheme_scores* scores, int64_t scheme,
                                                                  autoscheme_scheme_info* info,
                                                                  autoscheme_error** error);

/* A layer that takes part in the budget, in the model's order. OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_scores_get_layer(const autoscheme_scores* scores, int64_t layer,
                                                                 autoscheme_layer_info* info, autoscheme_error** error);

/* What the layer would cost with that scheme. By scorer deltaloss: how much the loss would move, to first order, summed
 * over the batches: the term of its weight and the term of its input. Which of them count depends on the menu;
 * autoscheme_scores_json has the sum. By other scorers `weight` is the whole, in nats per token, and `activation` is 0.
 * `weight` and `activation` may be NULL. OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_scores_get_loss(const autoscheme_scores* scores, int64_t scheme,
                                                                int64_t layer, double* weight, double* activation,
                                                                autoscheme_error** error);

/* [long] As autoscheme_generator_select, without model or generator. Takes from the options: avg_bits (unless
 * `count` > 0), target_size (likewise), schemes (a subset of the menu that was scored; all if not set),
 * ignore_scale_zp_bits, shared_layers, reference_rules. A recipe never costs more than its target (up to 0.001 bits
 * below the reachable range mean its lower end), and (but for its gap) never has more loss than that of a smaller
 * target, unless reference_rules is set. `options` may be NULL if `count` > 0. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_scores_select(const autoscheme_scores* scores,
                                                              const autoscheme_options* options, const double* avg_bits,
                                                              int64_t count, autoscheme_recipes** out,
                                                              autoscheme_error** error);

/* ---- Pareto front ---- */

/* [long] Every choice that no other beats in bits and loss at once, before a budget is fixed. Embedding and head
 * follow the rules of recipes: a point's avg_bits as the target of autoscheme_scores_select gives that choice. Takes
 * schemes, ignore_scale_zp_bits, shared_layers and reference_rules from the options, which may be NULL. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_scores_pareto(const autoscheme_scores* scores,
                                                              const autoscheme_options* options,
                                                              autoscheme_pareto** out, autoscheme_error** error);

/* since 0.1 */
AUTOSCHEME_API void autoscheme_pareto_free(autoscheme_pareto* pareto);

typedef struct autoscheme_pareto_info {
  size_t struct_size;
  int64_t point_count;
  int64_t total_params; /* weights of all layers */
  int32_t complete; /* 1: all efficient choices; 0: they are too many, and these are the corners of their convex hull */
  int32_t reserved; /* 0 */
} autoscheme_pareto_info;

/* since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_pareto_get_info(const autoscheme_pareto* pareto,
                                                                autoscheme_pareto_info* info, autoscheme_error** error);

typedef struct autoscheme_pareto_point {
  size_t struct_size;
  int64_t total_bits;
  double avg_bits; /* total_bits / total_params */
  double loss;
  double marginal_value; /* loss that a further bit of storage saves, towards the next point; 0 at the last */
} autoscheme_pareto_point;

/* Points come by rising bits. OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_pareto_get_point(const autoscheme_pareto* pareto, int64_t index,
                                                                 autoscheme_pareto_point* point,
                                                                 autoscheme_error** error);

/* The front as JSON text (docs/formats.md). Borrowed until it is freed; `length` may be NULL. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_pareto_json(const autoscheme_pareto* pareto, const char** json,
                                                            size_t* length, autoscheme_error** error);

/* Writes it. Errors: as autoscheme_scores_save. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_pareto_save(const autoscheme_pareto* pareto, const char* path,
                                                            autoscheme_error** error);

/* ---- recipes ---- */

/* Reads recipe.json (docs/formats.md). NOT_FOUND, DATA_LOSS (no JSON), INVALID_ARGUMENT (another file, a scheme that
 * cannot be). Any thread. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_recipes_load(autoscheme_context* context, const char* path,
                                                             autoscheme_recipes** out, autoscheme_error** error);

/* since 0.1 */
AUTOSCHEME_API void autoscheme_recipes_free(autoscheme_recipes* recipes);

/* Number of recipes, one for each target, in the order of the targets; 0 for NULL. since 0.1 */
AUTOSCHEME_API int64_t autoscheme_recipes_count(const autoscheme_recipes* recipes);

typedef struct autoscheme_recipe_info {
  size_t struct_size;
  double target_avg_bits; /* what was asked for */
  double avg_bits;        /* what the choice costs: total_bits / total_params */
  double loss;            /* predicted */
  int64_t total_bits;
  int64_t total_params; /* weights of all layers */
  int64_t layer_count;
  int64_t target_bytes; /* size that was asked for; 0 if target_avg_bits was */
  int64_t layer_bytes;  /* size of the layers in the files that runtimes load: packed values, scales, zero points */
  int64_t model_bytes;  /* the same with the model's other tensors as they are; 0 if the scores do not tell those */
} autoscheme_recipe_info;

/* OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_recipes_get_info(const autoscheme_recipes* recipes, int64_t recipe,
                                                                 autoscheme_recipe_info* info,
                                                                 autoscheme_error** error);

/* The scheme of the layer at `layer`. Any of `name` (the layer's), `scheme` and `fixed` (1 if it was fixed beforehand)
 * may be NULL. Strings are borrowed until the recipes are freed. OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_recipes_get_layer(const autoscheme_recipes* recipes, int64_t recipe,
                                                                  int64_t layer, const char** name,
                                                                  autoscheme_scheme_info* scheme, int32_t* fixed,
                                                                  autoscheme_error** error);

/* The index of the layer of that name; NOT_FOUND if the recipe does not have it. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_recipes_find_layer(const autoscheme_recipes* recipes, int64_t recipe,
                                                                   const char* name, int64_t* layer,
                                                                   autoscheme_error** error);

/* What autoscheme_generator_refine measured: KL(full precision || recipe), in nats per token. since 0.1 */
typedef struct autoscheme_refined_info {
  size_t struct_size;
  int64_t nsamples; /* rows that it was measured on */
  int64_t seqlen;
  int64_t evaluations;    /* recipes that were measured, the choice by scores among them */
  double avg_bits_before; /* bits per weight of the choice by scores */
  double kl_before;       /* the choice by scores */
  double kl_error_before; /* standard error of kl_before */
  double kl;              /* the recipe that was found; kl_before where none was */
  double kl_error;        /* standard error of kl */
  int32_t changed;        /* 1 if another recipe took the place of the choice by scores */
  int32_t reserved;       /* 0 */
} autoscheme_refined_info;

/* NOT_FOUND if the recipes were not refined; OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_recipes_get_refined(const autoscheme_recipes* recipes, int64_t recipe,
                                                                    autoscheme_refined_info* info,
                                                                    autoscheme_error** error);

/* What autoscheme_generator_verify measured. The string is borrowed until the recipes are freed. since 0.1 */
typedef struct autoscheme_verified_info {
  size_t struct_size;
  int64_t nsamples; /* rows that it was measured on */
  int64_t seqlen;
  double kl;         /* KL(full precision || that choice), in nats per token */
  double kl_error;   /* its standard error */
  const char* taken; /* the scheme whose uniform recipe has taken the place of that choice; NULL if none has */
  int64_t uniform_count;
  double avg_bits; /* those of the choice, by scores or after refinement */
} autoscheme_verified_info;

/* NOT_FOUND if the recipes were not verified; OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_recipes_get_verified(const autoscheme_recipes* recipes, int64_t recipe,
                                                                     autoscheme_verified_info* info,
                                                                     autoscheme_error** error);

/* A uniform recipe that keeps to the target, measured beside the choice. The string is borrowed until the recipes are
 * freed. since 0.1 */
typedef struct autoscheme_uniform_info {
  size_t struct_size;
  const char* scheme;
  double avg_bits;
  double kl; /* KL(full precision || recipe), in nats per token */
  double kl_error;
} autoscheme_uniform_info;

/* By rising bits. NOT_FOUND if the recipes were not verified; OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_recipes_get_uniform(const autoscheme_recipes* recipes, int64_t recipe,
                                                                    int64_t uniform, autoscheme_uniform_info* info,
                                                                    autoscheme_error** error);

/* The contents of recipe.json (docs/formats.md). Borrowed until the recipes are freed; `length` may be NULL. since
 * 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_recipes_json(const autoscheme_recipes* recipes, const char** json,
                                                             size_t* length, autoscheme_error** error);

/* Writes recipe.json, as autoscheme_scores_save does. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_recipes_save(const autoscheme_recipes* recipes, const char* path,
                                                             autoscheme_error** error);

/*
 * ====================================================================================================================
 * Evaluation: what recipes really cost
 * ====================================================================================================================
 */

/* What recipes make of a model's predictions, measured on tokens. Immutable. */
typedef struct autoscheme_evaluation autoscheme_evaluation;

/* [long] Runs the tokens through the full-precision model and, side by side, through one variant for each recipe and
 * one for each scheme of AUTOSCHEME_OPTION_SCHEMES (which may be left unset), every layer under that scheme. Each block
 * is read once. Give tokens that nothing was chosen by: of those that a recipe was scored with it may look better than
 * it is.
 *
 * `recipes` are `count` handles, all of whose recipes are taken, in their order; the schemes come behind them. `names`
 * are as many, for results and messages; NULL, or a NULL among them, stands for "recipe 0" and so on. Where a handle
 * holds several recipes the target of each is added to its name. `recipes` NULL and `count` 0 means schemes alone.
 *
 * Weights are rounded to the grids of their schemes, activations are quantized where a scheme says so. A recipe must
 * name every linear layer of the blocks. A head or an embedding that it does not name stays as it is, but a head that
 * is tied to the embedding has its scheme. k-quants are weighed by AUTOSCHEME_OPTION_IMATRIX_FILE and without one by
 * nothing (a note says so): the tokens measured never enter a quantizer.
 *
 * Takes from the options also ignore_layers, layer_config and quant_lm_head (for the schemes; a layer that a scheme
 * does not suit stays at 16 bits), ignore_scale_zp_bits, batch_size (matters only where the scale of activations spans
 * a batch), worst_tokens, by_position, and all about resources and computing; of several devices the first.
 * INVALID_ARGUMENT for a recipe that does not fit the model (recipe, layer), for nothing to evaluate, and for ids as in
 * _plan; UNIMPLEMENTED for an embedding under a scheme whose scales span rows; RESOURCE_EXHAUSTED if the budget cannot
 * be kept (names one that can); DATA_LOSS for weights or logits that are not finite; CANCELLED; CALLBACK_FAILED;
 * FAILED_PRECONDITION if the context is busy, or the skeleton has no weights. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status
autoscheme_evaluate(autoscheme_context* context, const autoscheme_skeleton* skeleton, const autoscheme_options* options,
                    const autoscheme_calibration* tokens, const autoscheme_recipes* const* recipes,
                    const char* const* names, int64_t count, autoscheme_evaluation** out, autoscheme_error** error);

/* since 0.1 */
AUTOSCHEME_API void autoscheme_evaluation_free(autoscheme_evaluation* evaluation);

typedef struct autoscheme_evaluation_info {
  size_t struct_size;
  int64_t recipe_count; /* recipes and schemes */
  int64_t note_count;
  int64_t nsamples; /* rows of tokens */
  int64_t seqlen;
  double cross_entropy;    /* the full-precision model's: mean over rows x (seqlen - 1) predictions, in nats */
  double perplexity;       /* its exponential */
  int32_t error_over_rows; /* 1: kl_error is that of the mean over rows; 0: there is one row, and it is that of the mean
                            * over tokens, which are not independent: too small */
  int32_t reserved;        /* 0 */
} autoscheme_evaluation_info;

/* since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_evaluation_get_info(const autoscheme_evaluation* evaluation,
                                                                    autoscheme_evaluation_info* info,
                                                                    autoscheme_error** error);

/* What one recipe does, on average over all predictions. Pointers are borrowed until the evaluation is freed. */
typedef struct autoscheme_recipe_evaluation {
  size_t struct_size;
  const char* name;
  double avg_bits;      /* total_bits / total_params */
  double kl;            /* KL(full precision || recipe) of the distribution of the next token, in nats */
  double kl_error;      /* its standard error */
  double top1;          /* share of predictions whose most likely token is the full-precision model's */
  double cross_entropy; /* nats */
  double perplexity;
  int64_t total_bits; /* storage bits of the layers named, scales included unless ignored */
  int64_t total_params;
  const double* row_kl; /* mean of each of the nsamples rows; two recipes are compared by their differences */
  /* Mean over rows at each of the seqlen - 1 positions, the token at position p predicting the one behind it; NULL
   * unless by_position was set. */
  const double* position_kl;
  int64_t worst_count; /* tokens that are listed */
} autoscheme_recipe_evaluation;

/* OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_evaluation_get_recipe(const autoscheme_evaluation* evaluation,
                                                                      int64_t recipe,
                                                                      autoscheme_recipe_evaluation* info,
                                                                      autoscheme_error** error);

/* One of a recipe's worst tokens, by falling KL. Any of `row`, `position` and `kl` may be NULL. OUT_OF_RANGE.
 * since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_evaluation_get_worst(const autoscheme_evaluation* evaluation,
                                                                     int64_t recipe, int64_t index, int64_t* row,
                                                                     int64_t* position, double* kl,
                                                                     autoscheme_error** error);

/* A sentence about how the figures came about, for people. Borrowed until the evaluation is freed; NULL past the end.
 * since 0.1 */
AUTOSCHEME_API const char* autoscheme_evaluation_note(const autoscheme_evaluation* evaluation, int64_t index);

/* What the evaluation has cost; backward_s is 0. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_evaluation_get_stats(const autoscheme_evaluation* evaluation,
                                                                     autoscheme_stats* stats, autoscheme_error** error);

/* The contents of eval.json (docs/formats.md). Borrowed until the evaluation is freed; `length` may be NULL. since
 * 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_evaluation_json(const autoscheme_evaluation* evaluation,
                                                                const char** json, size_t* length,
                                                                autoscheme_error** error);

/* Writes eval.json, as autoscheme_scores_save does. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_evaluation_save(const autoscheme_evaluation* evaluation,
                                                                const char* path, autoscheme_error** error);

/*
 * ====================================================================================================================
 * Streamer: blocks as tensors, one after the other
 * ====================================================================================================================
 */

/* The DLPack interchange struct, <dlpack/dlpack.h> version 1. */
struct DLManagedTensorVersioned;

/* Reads steps in a given order, the next one while the caller works with this one. An open streamer counts as a [long]
 * call on its context until it is freed. Threads: one at a time. */
typedef struct autoscheme_streamer autoscheme_streamer;

/* What an order is made of: a block's index, or one of these. */
enum {
  AUTOSCHEME_STEP_EMBEDDING = -1, /* the whole embedding */
  AUTOSCHEME_STEP_HEAD = -2,      /* the head's weight and bias; the embedding if it is tied */
  AUTOSCHEME_STEP_OTHER = -3      /* tensors outside blocks, embedding and head: the final norm */
};

/* Takes stream_slots, io_engine and max_ram_bytes from the options, which may be NULL. `order` NULL and `count` 0
 * means all blocks, forward.
 * INVALID_ARGUMENT for a block that does not exist; RESOURCE_EXHAUSTED if the slots do not fit max_ram_bytes;
 * FAILED_PRECONDITION if the context is busy, or the skeleton has no weights. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_streamer_create(autoscheme_context* context,
                                                                const autoscheme_skeleton* skeleton,
                                                                const autoscheme_options* options, const int64_t* order,
                                                                int64_t count, autoscheme_streamer** out,
                                                                autoscheme_error** error);

/* Ends reading before it returns; the context is free again. Memory of tensors that are still held goes when they are
 * given back. since 0.1 */
AUTOSCHEME_API void autoscheme_streamer_free(autoscheme_streamer* streamer);

/* The step that is resident. */
typedef struct autoscheme_step {
  size_t struct_size;
  int64_t index; /* the step's place in the order */
  int64_t block; /* the block, or AUTOSCHEME_STEP_* */
  int64_t tensor_count;
  uint64_t bytes;
} autoscheme_step;

/* Waits until the next step is in memory; the step before it is gone. `step` may be NULL.
 * OUT_OF_RANGE after the last; FAILED_PRECONDITION while a tensor of the step before has not been given back; DATA_LOSS
 * for a shard that ends early or has changed since it was opened (tensor, shard, offset); CANCELLED. After DATA_LOSS or
 * CANCELLED every further call fails in the same way. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_streamer_next(autoscheme_streamer* streamer, autoscheme_step* step,
                                                              autoscheme_error** error);

/* A tensor of the step that is resident; pointers are borrowed until the skeleton is freed. FAILED_PRECONDITION before
 * the first step; OUT_OF_RANGE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_streamer_get_tensor_info(const autoscheme_streamer* streamer,
                                                                         int64_t index, autoscheme_tensor_info* info,
                                                                         autoscheme_error** error);

/* The tensor itself, not copied: CPU memory, C order, read-only flag set, no alignment promised. Owned by the caller,
 * who calls its deleter, on any thread, before autoscheme_streamer_next. Its memory stays valid until then, also if the
 * streamer is freed before. Float types of 4 and 6 bits come packed, as in the file. UNIMPLEMENTED for an element type
 * that DLPack cannot say. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_streamer_get_tensor(autoscheme_streamer* streamer, int64_t index,
                                                                    struct DLManagedTensorVersioned** out,
                                                                    autoscheme_error** error);

typedef struct autoscheme_streamer_stats {
  size_t struct_size;
  uint64_t planned_bytes; /* what the whole order will read */
  uint64_t read_bytes;    /* so far */
  double read_s;          /* what the reader has spent reading */
  double stall_s;         /* what _next has waited */
  const char* io_engine;  /* the one that reads: "direct" or "buffered"; static */
} autoscheme_streamer_stats;

/* since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_streamer_get_stats(const autoscheme_streamer* streamer,
                                                                   autoscheme_streamer_stats* stats,
                                                                   autoscheme_error** error);

/*
 * ====================================================================================================================
 * Offload manager: a host's own weights, freed for a while
 * ====================================================================================================================
 */

/* The ledger of tensors that live in the host's memory: which are there, and how the others come back. Never frees what
 * it cannot restore. Threads: one at a time. */
typedef struct autoscheme_offload autoscheme_offload;

/* How the host gives up and takes back a tensor. They run on the thread that calls _release, _reload or _free. Read
 * during _create only. */
typedef struct autoscheme_offload_callbacks {
  size_t struct_size;
  /* Copies the tensor into `out`, exactly `bytes` long. Needed in mode "offload", never called in mode "clean". */
  int32_t (*save)(void* user_data, const char* name, void* out, size_t bytes);
  /* Frees the host's memory of the tensor. */
  int32_t (*release)(void* user_data, const char* name);
  /* Copies the tensor's bytes, borrowed for the call, back into memory of the host. */
  int32_t (*restore)(void* user_data, const char* name, const void* data, size_t bytes);
} autoscheme_offload_callbacks;

/* Takes offload_mode and work_dir from the options, which may be NULL. Mode "clean" drops tensors and reads them again
 * from the skeleton's checkpoint; mode "offload" writes them to a spill file first, and `skeleton` may then be NULL.
 * INVALID_ARGUMENT for a callback that the mode needs; FAILED_PRECONDITION in mode "clean" if the skeleton has no
 * weights. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_offload_create(autoscheme_context* context,
                                                               const autoscheme_skeleton* skeleton,
                                                               const autoscheme_options* options,
                                                               const autoscheme_offload_callbacks* callbacks,
                                                               void* user_data, void (*user_data_free)(void*),
                                                               autoscheme_offload** out, autoscheme_error** error);

/* Restores what is still released; failures go to the log. Call _reload first to hear of them. since 0.1 */
AUTOSCHEME_API void autoscheme_offload_free(autoscheme_offload* offload);

/* Registers a tensor of the host, which is resident. `shape` may be NULL if `rank` is 0. In mode "clean" the checkpoint
 * must hold it with the same type and shape. ALREADY_EXISTS, NOT_FOUND, INVALID_ARGUMENT. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_offload_manage(autoscheme_offload* offload, const char* name,
                                                               int32_t dtype, const int64_t* shape, int64_t rank,
                                                               autoscheme_error** error);

/* Frees the named tensors; all if `names` is NULL and `count` 0. If one cannot be freed, those that were are restored.
 * NOT_FOUND (not managed), CALLBACK_FAILED, RESOURCE_EXHAUSTED (spill file), UNAVAILABLE. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_offload_release(autoscheme_offload* offload, const char* const* names,
                                                                int64_t count, autoscheme_error** error);

/* Brings the named tensors back; all if `names` is NULL and `count` 0. Goes on after a failure and returns the first
 * one; what could not be restored stays released and can be tried again. since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_offload_reload(autoscheme_offload* offload, const char* const* names,
                                                               int64_t count, autoscheme_error** error);

typedef struct autoscheme_offload_info {
  size_t struct_size;
  uint64_t resident_bytes;
  uint64_t released_bytes;
} autoscheme_offload_info;

/* since 0.1 */
AUTOSCHEME_CHECKED autoscheme_status autoscheme_offload_get_info(const autoscheme_offload* offload,
                                                                 autoscheme_offload_info* info,
                                                                 autoscheme_error** error);

/* 1 if the tensor is managed and resident, else 0. since 0.1 */
AUTOSCHEME_API int32_t autoscheme_offload_is_resident(const autoscheme_offload* offload, const char* name);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* AUTOSCHEME_CAPI_AUTOSCHEME_H_ */
