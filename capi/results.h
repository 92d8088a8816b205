// What planning, scoring and selecting give: values with their JSON text.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "autoscheme/evaluate.h"
#include "autoscheme/pareto.h"
#include "autoscheme/recipe.h"
#include "autoscheme/scheme_generator.h"
#include "autoscheme/score_table.h"
#include "handles.h"

namespace autoscheme::capi {

autoscheme_plan* MakePlanHandle(Plan plan);
autoscheme_scores* MakeScoresHandle(std::shared_ptr<ContextState> state, ScoreTable table);
autoscheme_recipes* MakeRecipesHandle(std::shared_ptr<ContextState> state, std::vector<Recipe> recipes);

absl::Status FillStats(const RunStats& from, autoscheme_stats* stats);

}  // namespace autoscheme::capi

struct autoscheme_pareto {
  std::shared_ptr<autoscheme::capi::ContextState> context_state;
  autoscheme::ParetoFront front;
  autoscheme::capi::LazyText json;
};

struct autoscheme_plan {
  autoscheme::Plan plan;
  autoscheme::capi::LazyText json;
};

struct autoscheme_scores {
  std::shared_ptr<autoscheme::capi::ContextState> context_state;
  autoscheme::ScoreTable table;
  autoscheme::capi::LazyText json;
};

struct autoscheme_evaluation {
  std::shared_ptr<autoscheme::capi::ContextState> context_state;
  autoscheme::Evaluation evaluation;
  autoscheme::capi::LazyText json;
};

struct autoscheme_recipes {
  std::shared_ptr<autoscheme::capi::ContextState> context_state;
  std::vector<autoscheme::Recipe> recipes;
  autoscheme::capi::LazyText json;
};
