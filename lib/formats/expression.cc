#include "formats/expression.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace autoscheme {
namespace {

using Bytes = std::bitset<256>;

// Groups are lists of alternatives, alternatives lists of parts.
struct Node {
  enum Kind { kAlternatives, kSequence, kByte, kBegin, kEnd, kWordEdge, kNoWordEdge, kAhead, kNotAhead, kRepeat };
  explicit Node(Kind k) : kind(k) {}
  Kind kind;
  Bytes bytes;
  int least = 0, most = 0;  // bounds of a repetition; most < 0: without end
  std::vector<std::unique_ptr<Node>> parts;
};
using NodePtr = std::unique_ptr<Node>;

absl::Status Wrong(absl::string_view why, size_t at) {
  return absl::InvalidArgumentError(absl::StrCat(why, " at character ", at + 1));
}

template <typename Predicate>
Bytes Where(Predicate holds) {
  Bytes bytes;
  for (int c = 0; c < 128; ++c) bytes[c] = holds(c) != 0;
  return bytes;
}
Bytes Digits() {
  return Where([](int c) { return c >= '0' && c <= '9'; });
}
Bytes WordBytes() {
  return Where(
      [](int c) { return c == '_' || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); });
}
Bytes Blanks() {
  return Where([](int c) { return c == ' ' || (c >= '\t' && c <= '\r'); });
}

// The bytes that \d and the like stand for; \D is all but \d.
std::optional<Bytes> ClassOf(char letter) {
  const char lower = absl::ascii_tolower(static_cast<unsigned char>(letter));
  if (lower != 'd' && lower != 'w' && lower != 's') return std::nullopt;
  const Bytes bytes = lower == 'd' ? Digits() : lower == 'w' ? WordBytes() : Blanks();
  return letter == lower ? bytes : ~bytes;
}

// What [:alpha:] and the like stand for. Of ASCII, whatever the locale.
std::optional<Bytes> NamedClass(absl::string_view name) {
  const auto letter = [](int c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); };
  if (name == "digit" || name == "d") return Digits();
  if (name == "w") return WordBytes();
  if (name == "space" || name == "s") return Blanks();
  if (name == "alpha") return Where(letter);
  if (name == "alnum") return Where(letter) | Digits();
  if (name == "lower") return Where([](int c) { return c >= 'a' && c <= 'z'; });
  if (name == "upper") return Where([](int c) { return c >= 'A' && c <= 'Z'; });
  if (name == "punct") return Where([](int c) { return c > ' ' && c < 127; }) & ~Where(letter) & ~Digits();
  if (name == "xdigit") return Where([](int c) { return (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f'); }) | Digits();
  return std::nullopt;
}

// Parses by recursive descent; the text is short enough for that.
class Parser {
 public:
  explicit Parser(absl::string_view text) : text_(text) {}

  absl::StatusOr<NodePtr> Parse() {
    AUTOSCHEME_ASSIGN_OR_RETURN(NodePtr all, Alternatives());
    if (!done()) return Wrong("a ')' without its '('", at_);
    return all;
  }

 private:
  bool done() const { return at_ == text_.size(); }
  char peek() const { return done() ? '\0' : text_[at_]; }
  bool Take(absl::string_view wanted) {
    if (text_.substr(at_, wanted.size()) != wanted) return false;
    at_ += wanted.size();
    return true;
  }

  absl::StatusOr<NodePtr> Alternatives() {
    auto all = std::make_unique<Node>(Node::kAlternatives);
    do {
      auto sequence = std::make_unique<Node>(Node::kSequence);
      while (!done() && peek() != '|' && peek() != ')') {
        AUTOSCHEME_ASSIGN_OR_RETURN(NodePtr part, Repeated());
        sequence->parts.push_back(std::move(part));
      }
      all->parts.push_back(std::move(sequence));
    } while (Take("|"));
    return all;
  }

  absl::StatusOr<NodePtr> Repeated() {
    AUTOSCHEME_ASSIGN_OR_RETURN(NodePtr part, Atom());
    const bool consumes = part->kind == Node::kByte || part->kind == Node::kAlternatives;
    while (!done()) {
      const size_t start = at_;
      int least = 0, most = -1;
      if (Take("+")) {
        least = 1;
      } else if (Take("?")) {
        most = 1;
      } else if (Take("{")) {
        AUTOSCHEME_RETURN_IF_ERROR(Counts(&least, &most));
      } else if (!Take("*")) {
        break;
      }
      if (!consumes) return Wrong("nothing to repeat", start);
      Take("?");  // lazily
      auto repeat = std::make_unique<Node>(Node::kRepeat);
      repeat->least = least, repeat->most = most;
      repeat->parts.push_back(std::move(part));
      part = std::move(repeat);
    }
    return part;
  }

  // The rest of {n}, {n,} or {n,m}.
  absl::Status Counts(int* least, int* most) {
    const size_t start = at_;
    const auto number = [&]() -> std::optional<int> {
      if (!isdigit(static_cast<unsigned char>(peek()))) return std::nullopt;
      int value = 0;
      while (isdigit(static_cast<unsigned char>(peek())))
        value = std::min(value * 10 + (text_[at_++] - '0'), Expression::kMostSteps + 1);
      return value;
    };
    const std::optional<int> first = number();
    if (!first.has_value()) return Wrong("a '{' without a number", start - 1);
    *least = *most = *first;
    if (Take(",")) *most = number().value_or(-1);
    if (!Take("}")) return Wrong("a '{' without its '}'", start - 1);
    if (*most >= 0 && *most < *least) return Wrong("a repetition whose most is less than its least", start - 1);
    return absl::OkStatus();
  }

  absl::StatusOr<NodePtr> Atom() {
    const size_t start = at_;
    if (Take("^")) return std::make_unique<Node>(Node::kBegin);
    if (Take("$")) return std::make_unique<Node>(Node::kEnd);
    if (Take("(")) {
      AUTOSCHEME_ASSIGN_OR_RETURN(NodePtr group, Group(start));
      return group;
    }
    auto node = std::make_unique<Node>(Node::kByte);
    if (Take("[")) {
      AUTOSCHEME_ASSIGN_OR_RETURN(node->bytes, Set(start));
    } else if (Take(".")) {
      node->bytes.set().reset('\n').reset('\r');
    } else if (Take("\\")) {
      if (Take("b")) return std::make_unique<Node>(Node::kWordEdge);
      if (Take("B")) return std::make_unique<Node>(Node::kNoWordEdge);
      if (peek() >= '1' && peek() <= '9') return Wrong("a back-reference, which is not supported,", start);
      AUTOSCHEME_ASSIGN_OR_RETURN(node->bytes, Escape(start));
    } else if (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{') {
      return Wrong("nothing to repeat", start);
    } else {
      node->bytes.set(static_cast<unsigned char>(text_[at_++]));
    }
    return node;
  }

  absl::StatusOr<NodePtr> Group(size_t start) {
    Node::Kind kind = Node::kAlternatives;
    if (Take("?")) {
      if (Take("=")) {
        kind = Node::kAhead;
      } else if (Take("!")) {
        kind = Node::kNotAhead;
      } else if (!Take(":")) {
        return Wrong("a group that begins with neither (?: nor (?= nor (?!", start);
      }
    }
    AUTOSCHEME_ASSIGN_OR_RETURN(NodePtr inner, Alternatives());
    if (!Take(")")) return Wrong("a '(' without its ')'", start);
    if (kind == Node::kAlternatives) return inner;
    auto look = std::make_unique<Node>(kind);
    look->parts.push_back(std::move(inner));
    return look;
  }

  // What follows a backslash, of those that stand for bytes.
  absl::StatusOr<Bytes> Escape(size_t start) {
    if (done()) return Wrong("a '\\' with nothing after it", start);
    const char c = text_[at_++];
    if (const std::optional<Bytes> of_class = ClassOf(c)) return *of_class;
    Bytes bytes;
    const auto one = [&](int byte) { return bytes.set(static_cast<size_t>(byte)); };
    constexpr absl::string_view kLetters = "tnrfv0", kMeanings("\t\n\r\f\v\0", 6);
    if (const size_t i = kLetters.find(c); i != absl::string_view::npos) return one(kMeanings[i]);
    if (c == 'x' || c == 'u') {
      int value = 0;
      for (int digits = c == 'x' ? 2 : 4; digits > 0; --digits, ++at_) {
        if (!isxdigit(static_cast<unsigned char>(peek())))
          return Wrong("a '\\' with too few hexadecimal digits", start);
        value = value * 16 + (isdigit(static_cast<unsigned char>(peek())) ? peek() - '0' : (peek() | 32) - 'a' + 10);
      }
      if (value > 127) return Wrong("a '\\' with a number above 127", start);
      return one(value);
    }
    if (isalnum(static_cast<unsigned char>(c)))
      return Wrong(absl::StrCat("an unknown escape, '\\", std::string(1, c), "',"), start);
    return one(static_cast<unsigned char>(c));
  }

  // The rest of [...].
  absl::StatusOr<Bytes> Set(size_t start) {
    const bool negated = Take("^");
    if (text_.substr(at_, 1) == "]") return Wrong("a set that begins with ']' (for a ']' in it write \\]),", start);
    Bytes all;
    while (!Take("]")) {
      if (done()) return Wrong("a '[' without its ']'", start);
      AUTOSCHEME_ASSIGN_OR_RETURN(const Bytes first, SetItem(start));
      if (text_.substr(at_, 1) != "-" || text_.substr(at_, 2) == "-]") {
        all |= first;
        continue;
      }
      const size_t dash = at_++;
      AUTOSCHEME_ASSIGN_OR_RETURN(const Bytes last, SetItem(start));
      const std::optional<int> from = Single(first), to = Single(last);
      if (!from.has_value() || !to.has_value() || *from > *to) return Wrong("a range that does not rise", dash);
      for (int c = *from; c <= *to; ++c) all.set(static_cast<size_t>(c));
    }
    return negated ? ~all : all;
  }

  absl::StatusOr<Bytes> SetItem(size_t start) {
    if (done()) return Wrong("a '[' without its ']'", start);
    const size_t here = at_;
    if (Take("[:")) {
      const size_t end = text_.find(":]", at_);
      const std::optional<Bytes> named =
          end == absl::string_view::npos ? std::nullopt : NamedClass(text_.substr(at_, end - at_));
      if (!named.has_value()) return Wrong("an unknown class of characters", here);
      at_ = end + 2;
      return *named;
    }
    if (Take("\\")) {
      Bytes bytes;
      if (Take("b")) return bytes.set('\b');
      return Escape(here);
    }
    Bytes bytes;
    return bytes.set(static_cast<unsigned char>(text_[at_++]));
  }

  static std::optional<int> Single(const Bytes& bytes) {
    if (bytes.count() != 1) return std::nullopt;
    int byte = 0;
    while (!bytes[static_cast<size_t>(byte)]) ++byte;
    return byte;
  }

  const absl::string_view text_;
  size_t at_ = 0;
};

}  // namespace

// Lays the steps out from the last to the first, so that each knows what follows it.
class ExpressionCompiler {
 public:
  explicit ExpressionCompiler(Expression& expression) : e_(expression) {}

  absl::Status Compile(const Node& root) {
    e_.start_ = Before(root, Add({Expression::Op::kMatch}));
    if (work_ <= Expression::kMostSteps) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("it unfolds to more than ", Expression::kMostSteps, " steps"));
  }

 private:
  using Op = Expression::Op;
  int Add(Expression::Step step) {
    e_.steps_.push_back(step);
    return static_cast<int>(e_.steps_.size()) - 1;
  }

  // Steps that match `node` and go on with `next`; where they begin. Each visit counts, since repetitions of nothing
  // add no steps.
  int Before(const Node& node, int next) {
    if (++work_ > Expression::kMostSteps) return next;
    switch (node.kind) {
      case Node::kAlternatives: {
        int begin = Before(*node.parts.back(), next);
        for (size_t i = node.parts.size() - 1; i-- > 0;) begin = Add({Op::kSplit, Before(*node.parts[i], next), begin});
        return begin;
      }
      case Node::kSequence:
        for (size_t i = node.parts.size(); i-- > 0;) next = Before(*node.parts[i], next);
        return next;
      case Node::kByte:
        e_.sets_.push_back(node.bytes);
        return Add({Op::kByte, next, static_cast<int>(e_.sets_.size()) - 1});
      case Node::kBegin: return Add({Op::kBegin, next});
      case Node::kEnd: return Add({Op::kEnd, next});
      case Node::kWordEdge: return Add({Op::kWordEdge, next});
      case Node::kNoWordEdge: return Add({Op::kNoWordEdge, next});
      case Node::kAhead:
      case Node::kNotAhead: {
        const int inner = Before(*node.parts[0], Add({Op::kMatch}));
        return Add({node.kind == Node::kAhead ? Op::kAhead : Op::kNotAhead, next, inner});
      }
      case Node::kRepeat: {
        const Node& part = *node.parts[0];
        if (node.most < 0) {
          const int loop = Add({Op::kSplit, next, next});
          const int body = Before(part, loop);
          e_.steps_[static_cast<size_t>(loop)].other = body;
          next = loop;
        } else {
          const int after = next;
          for (int i = node.least; i < node.most && work_ <= Expression::kMostSteps; ++i) {
            next = Add({Op::kSplit, after, Before(part, next)});
          }
        }
        for (int i = 0; i < node.least && work_ <= Expression::kMostSteps; ++i) next = Before(part, next);
        return next;
      }
    }
    return next;
  }

  Expression& e_;
  int work_ = 0;
};

class ExpressionMatcher {
 public:
  ExpressionMatcher(const Expression& expression, absl::string_view text) : e_(expression), text_(text) {}

  bool Search() {
    std::vector<Place> places;
    for (size_t at = text_.size() + 1; at-- > 0;) places.push_back({e_.start_, at});
    return Reaches(std::move(places));
  }

 private:
  using Op = Expression::Op;
  struct Place {
    int step;
    size_t at;
  };

  // Whether a match can be reached from one of the places. A place that was left without one need not be come to again.
  bool Reaches(std::vector<Place> places) {
    std::vector<bool> seen(e_.steps_.size() * (text_.size() + 1), false);
    while (!places.empty()) {
      const Place place = places.back();
      places.pop_back();
      const size_t index = static_cast<size_t>(place.step) * (text_.size() + 1) + place.at;
      if (seen[index]) continue;
      seen[index] = true;
      const Expression::Step& step = e_.steps_[static_cast<size_t>(place.step)];
      bool goes_on = true;
      size_t at = place.at;
      switch (step.op) {
        case Op::kMatch: return true;
        case Op::kByte:
          goes_on =
              at < text_.size() && e_.sets_[static_cast<size_t>(step.other)][static_cast<unsigned char>(text_[at])];
          ++at;
          break;
        case Op::kSplit: places.push_back({step.other, at}); break;
        case Op::kBegin: goes_on = at == 0; break;
        case Op::kEnd: goes_on = at == text_.size(); break;
        case Op::kWordEdge:
        case Op::kNoWordEdge: goes_on = (IsWord(at - 1) != IsWord(at)) == (step.op == Op::kWordEdge); break;
        case Op::kAhead:
        case Op::kNotAhead: goes_on = Ahead(step.other, at) == (step.op == Op::kAhead); break;
      }
      if (goes_on) places.push_back({step.next, at});
    }
    return false;
  }

  // At most once for each step and place, or lookaheads in lookaheads would multiply.
  bool Ahead(int step, size_t at) {
    const auto key = std::make_pair(step, at);
    if (const auto known = ahead_.find(key); known != ahead_.end()) return known->second;
    return ahead_[key] = Reaches({{step, at}});
  }

  bool IsWord(size_t at) const {
    static const Bytes* const word = new Bytes(WordBytes());
    return at < text_.size() &&
           (*word)[static_cast<unsigned char>(text_[at])];  // before the first byte `at` has wrapped round
  }

  const Expression& e_;
  const absl::string_view text_;
  std::map<std::pair<int, size_t>, bool> ahead_;
};

absl::StatusOr<Expression> Expression::Parse(absl::string_view text) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const NodePtr root, Parser(text).Parse());
  Expression expression;
  AUTOSCHEME_RETURN_IF_ERROR(ExpressionCompiler(expression).Compile(*root));
  return expression;
}

bool Expression::Matches(absl::string_view text) const { return ExpressionMatcher(*this, text).Search(); }

}  // namespace autoscheme
