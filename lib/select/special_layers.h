// Layers that do not simply take the solver's choice: the head, the embedding, rows that a K type cannot hold.
#ifndef AUTOSCHEME_SELECT_SPECIAL_LAYERS_H_
#define AUTOSCHEME_SELECT_SPECIAL_LAYERS_H_

#include <optional>
#include <vector>

#include "select/problem.h"

namespace autoscheme {

// SPEC 7.3: a head that is chosen by itself is left with the options of 6 bits and more, where menu and budget allow
// it. Narrows keys[head_group] and options[head_group].
void LimitHead(const Problem& problem, double target, int64_t budget, std::vector<SolverKey>* keys,
               std::vector<std::vector<int>>* options);

// SPEC 7.3: the option (an index into problem.menu) for the embeddings, whose bits are to be taken from `budget`.
int ChooseEmbedding(const Problem& problem, double target, int64_t budget);

// What stands in for a K type on a layer whose rows are no multiple of 256 (SPEC 7.8). Empty when the type can stay.
// For an embedding AutoRound makes the change itself, later and by a shorter rule; it is made here so that the recipe
// says what will be stored.
std::optional<Scheme> GgufFallback(const Scheme& scheme, const LayerInfo& layer);

}  // namespace autoscheme

#endif  // AUTOSCHEME_SELECT_SPECIAL_LAYERS_H_
