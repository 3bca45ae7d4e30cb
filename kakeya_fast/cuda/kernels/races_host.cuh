// Shared memory as a checker sees it: which access may meet another that no barrier, no warp
// barrier and no wait keeps apart, and which reads what nobody wrote. Built with KAKEYA_RACES;
// without it all of this is nothing.
//
// The host runs the lanes of a warp in step and the warps of a block in turn, so that a missing
// barrier changes no result here. This keeps, for every byte, who wrote and who read it last.
#pragma once

#if defined(KAKEYA_RACES)
#include <cstddef>
#include <cstdio>
#include <deque>
#include <vector>
#endif

namespace kakeya {

#if defined(KAKEYA_RACES)

class Races {
 public:
  /// What is left out on purpose, to see that it is missed.
  enum Without { BARRIERS = 1, WARP_BARRIERS = 2, WAITS = 4, COPIES = 8 };

  void begin(int without) {
    *this = Races();
    without_ = without;
  }

  /// Forget a region's past, or every region's where there is none.
  void watch(const void* base, std::size_t bytes) {
    const u8* from = static_cast<const u8*>(base);
    for (Region& r : regions_) {
      if (r.base == from) return r.cells.assign(bytes, Cell());
    }
    regions_.push_back({from, std::vector<Cell>(bytes)});
  }
  void forget() {
    regions_.clear();
    groups_.clear();
  }

  void enter(int warp) { warp_ = warp; }
  void barrier() { step_ += !(without_ & BARRIERS); }
  void new_block() { ++step_; }
  void warp_barrier() { ages_[warp_] += !(without_ & WARP_BARRIERS); }

  void read(const void* at, int bytes, int lane) {
    for (Cell* c = find(at); bytes-- && c; ++c) {
      ++seen_;
      if (c->coming) tell("read before its copy has come", *c, lane);
      if (c->written.step < 0) tell("read of what nobody wrote", *c, lane);
      if (meets(c->written, lane)) tell("read of what another writes", *c, lane);
      note(c->taken, lane);
    }
  }

  void write(const void* at, int bytes, int lane, bool coming = false) {
    for (Cell* c = find(at); bytes-- && c; ++c) {
      ++seen_;
      if (c->coming) tell("write where a copy is on its way", *c, lane);
      if (meets(c->written, lane)) tell("write over what another writes", *c, lane);
      if (meets(c->taken, lane)) tell("write over what another reads", *c, lane);
      c->written = {step_, warp_, lane, ages_[warp_]};
      c->taken = Touch();
      c->coming = coming;
    }
  }

  void copy(const void* at, int bytes, int lane) {
    if (without_ & COPIES) return;
    write(at, bytes, lane, true);
    groups_[warp_].open.push_back({static_cast<const u8*>(at), bytes, lane});
  }
  void copies_end() {
    groups_[warp_].closed.push_back(groups_[warp_].open);
    groups_[warp_].open.clear();
  }
  void copies_wait(std::size_t left) {
    if (without_ & WAITS) return;
    auto& closed = groups_[warp_].closed;
    for (; closed.size() > left; closed.pop_front()) {
      for (const Copy& copy : closed.front()) {
        Cell* c = find(copy.at);
        for (int i = 0; i < copy.bytes && c; ++i, ++c) {
          c->coming = false;
          c->written = {step_, warp_, copy.lane, ages_[warp_]};
        }
      }
    }
  }

  /// Accesses of watched bytes, races among them, and the first of these in words.
  long long seen() const { return seen_; }
  long long found() const { return found_; }
  const char* first() const { return first_; }

 private:
  struct Touch {
    long long step = -1;
    int warp = -1, lane = -1;  // -1: several
    long long age = 0;
  };
  struct Cell {
    Touch written, taken;
    bool coming = false;
  };
  struct Region {
    const u8* base;
    std::vector<Cell> cells;
  };
  struct Copy {
    const u8* at;
    int bytes, lane;
  };
  struct Groups {
    std::vector<Copy> open;
    std::deque<std::vector<Copy>> closed;
  };
  // Warps of a block, at most; maps from numbers would do, but are slow.
  static constexpr int MOST = 32;
  struct Ages {
    long long of[MOST] = {};
    long long& operator[](int warp) { return of[warp]; }
  };
  struct PerWarp {
    std::vector<Groups> of = std::vector<Groups>(MOST);
    Groups& operator[](int warp) { return of[warp]; }
    void clear() { of.assign(MOST, Groups()); }
  };

  Cell* find(const void* at) {
    const u8* byte = static_cast<const u8*>(at);
    for (Region& r : regions_) {
      if (byte >= r.base && byte < r.base + r.cells.size()) return &r.cells[byte - r.base];
    }
    return nullptr;
  }

  bool meets(const Touch& other, int lane) {
    if (other.step != step_) return false;
    if (other.warp != warp_) return true;
    return other.age == ages_[warp_] && other.lane != lane;
  }

  void note(Touch& taken, int lane) {
    if (taken.step != step_) {
      taken = {step_, warp_, lane, ages_[warp_]};
    } else if (taken.warp != warp_) {
      taken.warp = -1;
    } else if (taken.age != ages_[warp_]) {
      taken.age = ages_[warp_], taken.lane = lane;
    } else if (taken.lane != lane) {
      taken.lane = -1;
    }
  }

  void tell(const char* what, const Cell& c, int lane) {
    if (found_++) return;
    const long long at = &c - &region_of(c)->cells[0];
    std::snprintf(first_, sizeof first_,
                  "%s: byte %lld, step %lld, warp %d lane %d; written by warp %d lane %d in step "
                  "%lld, read by warp %d lane %d in step %lld",
                  what, at, step_, warp_, lane, c.written.warp, c.written.lane, c.written.step,
                  c.taken.warp, c.taken.lane, c.taken.step);
  }

  Region* region_of(const Cell& c) {
    for (Region& r : regions_) {
      if (&c >= r.cells.data() && &c < r.cells.data() + r.cells.size()) return &r;
    }
    return nullptr;
  }

  std::vector<Region> regions_;
  PerWarp groups_;
  Ages ages_;
  long long step_ = 0, seen_ = 0, found_ = 0;
  int warp_ = 0, without_ = 0;
  char first_[256] = "";
};

#else

class Races {
 public:
  void watch(const void*, unsigned long) {}
  void forget() {}
  void enter(int) {}
  void barrier() {}
  void new_block() {}
  void warp_barrier() {}
  void read(const void*, int, int) {}
  void write(const void*, int, int) {}
  void copy(const void*, int, int) {}
  void copies_end() {}
  void copies_wait(unsigned long) {}
};

#endif

inline thread_local Races races;

}  // namespace kakeya
