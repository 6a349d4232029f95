// 3x3 convolutions with stride 1 and padding equal to the dilation, of float32 images in NHWC
// memory, by Winograd's minimal filtering (Lavin & Gray 2016, "Fast Algorithms for Convolutional
// Neural Networks").
//
// An output tile of OUT x OUT pixels comes from an input tile d of SIDE x SIDE, SIDE = OUT + 2:
//   y = A^T [ (G g G^T) . (B^T d B) ] A
// where "." multiplies position by position and, summed over input channels for all tiles at once,
// is one matrix product per position. With e the gradient of y,
//   that of the input is the convolution of e with the filters turned by 180 degrees,
//   that of the filters is G^T [ sum over tiles of (A e A^T) . (B^T d B) ] G.
// F(4x4, 3x3) takes 36 products for 16 pixels, F(6x6, 3x3) 64 for 36, a direct convolution 9 for 1.
// A dilated convolution is one of its own on each of its dilation^2 phases.
//
// Channels are multiples of 8. Threads share out tiles and positions, and no sum crosses threads:
// results depend neither on their number nor on their timing.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

// BLAS's, column-major: MKL's in libtorch_cpu, single-threaded in a parallel region.
extern "C" void sgemm_(const char* transpose_a, const char* transpose_b, const int* rows,
                       const int* columns, const int* inner, const float* alpha, const float* a,
                       const int* lda, const float* b, const int* ldb, const float* beta, float* c,
                       const int* ldc);

namespace {

using std::int64_t;
constexpr int LANES = 8;
using Vec = float __attribute__((vector_size(4 * LANES)));
using Unaligned = float __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Vec load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
inline void store(float* to, Vec v) { *reinterpret_cast<Unaligned*>(to) = v; }

// c [rows, columns] = a b, or c + a b; a is [rows, inner] and b [inner, columns], or stored as its
// transpose where the flag says so. Row-major: BLAS is asked for c^T = b^T a^T.
void product(bool a_transposed, bool b_transposed, int rows, int columns, int inner, const float* a,
             const float* b, bool add, float* c) {
  const float alpha = 1, beta = add;
  sgemm_(b_transposed ? "T" : "N", a_transposed ? "T" : "N", &columns, &rows, &inner, &alpha, b,
         b_transposed ? &inner : &columns, a, a_transposed ? &rows : &inner, &beta, c, &columns);
}

// The interpolation points are 0, 1, -1, 2, -2 and infinity. Rows of a point and its negative share
// the even and the odd half of their sums.
struct F4 {
  static constexpr int OUT = 4, SIDE = 6;

  static inline void input(const Vec* d, Vec* v) {  // B^T
    const Vec even1 = d[4] - 4 * d[2], odd1 = d[3] - 4 * d[1];
    const Vec even2 = d[4] - d[2], odd2 = 2 * (d[3] - d[1]);
    v[0] = 4 * d[0] - 5 * d[2] + d[4];
    v[1] = even1 + odd1;
    v[2] = even1 - odd1;
    v[3] = even2 + odd2;
    v[4] = even2 - odd2;
    v[5] = 4 * d[1] - 5 * d[3] + d[5];
  }
  static inline void output(const Vec* m, Vec* y) {  // A^T
    const Vec even1 = m[1] + m[2], odd1 = m[1] - m[2];
    const Vec even2 = m[3] + m[4], odd2 = m[3] - m[4];
    y[0] = m[0] + even1 + even2;
    y[1] = odd1 + 2 * odd2;
    y[2] = even1 + 4 * even2;
    y[3] = odd1 + 8 * odd2 + m[5];
  }
  static inline void gradient(const Vec* e, Vec* w) {  // A
    const Vec even1 = e[0] + e[2], odd1 = e[1] + e[3];
    const Vec even2 = e[0] + 4 * e[2], odd2 = 2 * e[1] + 8 * e[3];
    w[0] = e[0];
    w[1] = even1 + odd1;
    w[2] = even1 - odd1;
    w[3] = even2 + odd2;
    w[4] = even2 - odd2;
    w[5] = e[3];
  }
  static inline void filter(const Vec* g, Vec* u) {  // G
    const Vec even1 = (g[0] + g[2]) * (-1.f / 6), odd1 = g[1] * (-1.f / 6);
    const Vec even2 = (g[0] + 4 * g[2]) * (1.f / 24), odd2 = g[1] * (1.f / 12);
    u[0] = g[0] * (1.f / 4);
    u[1] = even1 + odd1;
    u[2] = even1 - odd1;
    u[3] = even2 + odd2;
    u[4] = even2 - odd2;
    u[5] = g[2];
  }
  static inline void filter_gradient(const Vec* u, Vec* g) {  // G^T
    const Vec even1 = (u[1] + u[2]) * (-1.f / 6), odd1 = (u[1] - u[2]) * (-1.f / 6);
    const Vec even2 = (u[3] + u[4]) * (1.f / 24), odd2 = (u[3] - u[4]) * (1.f / 12);
    g[0] = u[0] * (1.f / 4) + even1 + even2;
    g[1] = odd1 + odd2;
    g[2] = even1 + 4 * even2 + u[5];
  }
};

// As above, with the points 1/2 and -1/2 besides.
struct F6 {
  static constexpr int OUT = 6, SIDE = 8;

  static inline void input(const Vec* d, Vec* v) {  // B^T
    const Vec even1 = d[2] - 4.25f * d[4] + d[6], odd1 = d[1] - 4.25f * d[3] + d[5];
    const Vec even2 = .25f * d[2] - 1.25f * d[4] + d[6];
    const Vec odd2 = .5f * d[1] - 2.5f * d[3] + 2 * d[5];
    const Vec even3 = 4 * d[2] - 5 * d[4] + d[6], odd3 = 2 * d[1] - 2.5f * d[3] + .5f * d[5];
    v[0] = d[0] - d[6] + 5.25f * (d[4] - d[2]);
    v[1] = even1 + odd1;
    v[2] = even1 - odd1;
    v[3] = even2 + odd2;
    v[4] = even2 - odd2;
    v[5] = even3 + odd3;
    v[6] = even3 - odd3;
    v[7] = d[7] - d[1] + 5.25f * (d[3] - d[5]);
  }
  static inline void output(const Vec* m, Vec* y) {  // A^T
    const Vec even1 = m[1] + m[2], odd1 = m[1] - m[2];
    const Vec even2 = m[3] + m[4], odd2 = m[3] - m[4];
    const Vec even3 = m[5] + m[6], odd3 = m[5] - m[6];
    y[0] = m[0] + even1 + even2 + even3;
    y[1] = odd1 + 2 * odd2 + (1.f / 2) * odd3;
    y[2] = even1 + 4 * even2 + (1.f / 4) * even3;
    y[3] = odd1 + 8 * odd2 + (1.f / 8) * odd3;
    y[4] = even1 + 16 * even2 + (1.f / 16) * even3;
    y[5] = odd1 + 32 * odd2 + (1.f / 32) * odd3 + m[7];
  }
  static inline void gradient(const Vec* e, Vec* w) {  // A
    const Vec even1 = e[0] + e[2] + e[4], odd1 = e[1] + e[3] + e[5];
    const Vec even2 = e[0] + 4 * e[2] + 16 * e[4], odd2 = 2 * e[1] + 8 * e[3] + 32 * e[5];
    const Vec even3 = e[0] + (1.f / 4) * e[2] + (1.f / 16) * e[4];
    const Vec odd3 = (1.f / 2) * e[1] + (1.f / 8) * e[3] + (1.f / 32) * e[5];
    w[0] = e[0];
    w[1] = even1 + odd1;
    w[2] = even1 - odd1;
    w[3] = even2 + odd2;
    w[4] = even2 - odd2;
    w[5] = even3 + odd3;
    w[6] = even3 - odd3;
    w[7] = e[5];
  }
  static inline void filter(const Vec* g, Vec* u) {  // G
    const Vec even1 = (g[0] + g[2]) * (-2.f / 9), odd1 = g[1] * (-2.f / 9);
    const Vec even2 = (g[0] + 4 * g[2]) * (1.f / 90), odd2 = g[1] * (2.f / 90);
    const Vec even3 = (4 * g[0] + g[2]) * (8.f / 45), odd3 = g[1] * (16.f / 45);
    u[0] = g[0];
    u[1] = even1 + odd1;
    u[2] = even1 - odd1;
    u[3] = even2 + odd2;
    u[4] = even2 - odd2;
    u[5] = even3 + odd3;
    u[6] = even3 - odd3;
    u[7] = g[2];
  }
  static inline void filter_gradient(const Vec* u, Vec* g) {  // G^T
    const Vec even1 = (u[1] + u[2]) * (-2.f / 9), odd1 = (u[1] - u[2]) * (-2.f / 9);
    const Vec even2 = (u[3] + u[4]) * (1.f / 90), odd2 = (u[3] - u[4]) * (2.f / 90);
    const Vec even3 = (u[5] + u[6]) * (8.f / 45), odd3 = (u[5] - u[6]) * (16.f / 45);
    g[0] = u[0] + even1 + even2 + 4 * even3;
    g[1] = odd1 + odd2 + odd3;
    g[2] = even1 + 4 * even2 + even3 + u[7];
  }
};

// put(i, j, (T X T^T)[i, j]) of the FROM x FROM matrix X, a Vec per entry, and T = LINE on columns.
template <int FROM, int TO, void (*LINE)(const Vec*, Vec*), class Put>
inline void on_both_sides(const Vec* x, Put put) {
  Vec half[FROM][TO];
  for (int i = 0; i < FROM; i++) LINE(x + i * FROM, half[i]);
  for (int j = 0; j < TO; j++) {
    Vec column[FROM], mapped[TO];
    for (int i = 0; i < FROM; i++) column[i] = half[i][j];
    LINE(column, mapped);
    for (int i = 0; i < TO; i++) put(i, j, mapped[i]);
  }
}

// One matrix [rows, columns] of floats per tile position, apart by no power of two.
struct Positions {
  int64_t stride;
  std::unique_ptr<float, decltype(&std::free)> memory;

  Positions(int positions, int64_t rows, int64_t columns)
      : stride(rows * columns + 16), memory(nullptr, &std::free) {
    memory.reset(static_cast<float*>(std::aligned_alloc(64, positions * stride * sizeof(float))));
    if (!memory) throw std::bad_alloc();
  }
  float* at(int position) const { return memory.get() + position * stride; }
};

// Images and their tiles, numbered by image, phase (y, x) and place in the phase (y, x).
struct Map {
  int64_t images, height, width, dilation;

  template <class F> int64_t down() const { return across<F>(height); }
  template <class F> int64_t right() const { return across<F>(width); }
  template <class F> int64_t across(int64_t side) const {
    return ((side + dilation - 1) / dilation + F::OUT - 1) / F::OUT;
  }
  template <class F> int64_t tiles() const {
    return images * dilation * dilation * down<F>() * right<F>();
  }
  // The pixels of a SPAN x SPAN tile that begins `before` pixels early, as numbers; -1 outside.
  template <class F, int SPAN> void pixels(int64_t tile, int before, int64_t* out) const {
    const int64_t tile_x = tile % right<F>(), rest = tile / right<F>();
    const int64_t tile_y = rest % down<F>(), phase = rest / down<F>();
    const int64_t phase_x = phase % dilation, phase_y = phase / dilation % dilation;
    const int64_t image = phase / dilation / dilation;
    for (int i = 0; i < SPAN; i++)
      for (int j = 0; j < SPAN; j++) {
        const int64_t y = phase_y + dilation * (tile_y * F::OUT + i - before);
        const int64_t x = phase_x + dilation * (tile_x * F::OUT + j - before);
        const bool inside = 0 <= y && y < height && 0 <= x && x < width;
        out[i * SPAN + j] = inside ? (image * height + y) * width + x : -1;
      }
  }
};

// The functions below run in a parallel region; each ends with all threads done.

// u[position] = [K, C], of filters [K, 3, 3, C], as they are or turned by 180 degrees.
template <class F>
void transform_filters(const float* filters, int64_t K, int64_t C, bool turned, Positions& u) {
#pragma omp for schedule(dynamic, 8)
  for (int64_t k = 0; k < K; k++)
    for (int64_t c = 0; c < C; c += LANES) {
      Vec g[9];
      for (int at = 0; at < 9; at++)
        g[at] = load(filters + (k * 9 + (turned ? 8 - at : at)) * C + c);
      on_both_sides<3, F::SIDE, F::filter>(g, [&](int i, int j, Vec value) {
        store(u.at(i * F::SIDE + j) + k * C + c, value);
      });
    }
}

// The gradient of filters [K, 3, 3, C] from that of their transforms.
template <class F>
void transform_filter_gradients(const Positions& du, int64_t K, int64_t C, float* gradient) {
  constexpr int P = F::SIDE * F::SIDE;
#pragma omp for schedule(dynamic, 8)
  for (int64_t k = 0; k < K; k++)
    for (int64_t c = 0; c < C; c += LANES) {
      Vec u[P];
      for (int at = 0; at < P; at++) u[at] = load(du.at(at) + k * C + c);
      on_both_sides<F::SIDE, 3, F::filter_gradient>(u, [&](int i, int j, Vec value) {
        store(gradient + (k * 9 + i * 3 + j) * C + c, value);
      });
    }
}

// The input tiles first..first + count of x, set to zero where `mask` (if any) is not positive:
// as B^T d B in v (if any), and as A e A^T of their inner pixels in w (if any).
template <class F>
void transform_input(const Map& map, const float* x, const float* mask, int64_t C, int64_t first,
                     int64_t count, Positions* v, Positions* w) {
  constexpr int SIDE = F::SIDE, OUT = F::OUT;
#pragma omp for schedule(dynamic, 8)
  for (int64_t tile = 0; tile < count; tile++) {
    int64_t pixels[SIDE * SIDE];
    map.pixels<F, SIDE>(first + tile, 1, pixels);
    for (int64_t c = 0; c < C; c += LANES) {
      Vec d[SIDE * SIDE];
      for (int at = 0; at < SIDE * SIDE; at++) {
        d[at] = Vec{};
        if (pixels[at] < 0) continue;
        const int64_t from = pixels[at] * C + c;
        d[at] = load(x + from);
        if (mask) d[at] = load(mask + from) > 0 ? d[at] : Vec{};
      }
      const int64_t to = tile * C + c;
      if (v)
        on_both_sides<SIDE, SIDE, F::input>(
            d, [&](int i, int j, Vec value) { store(v->at(i * SIDE + j) + to, value); });
      if (w) {
        Vec inner[OUT * OUT];
        for (int i = 0; i < OUT; i++)
          for (int j = 0; j < OUT; j++) inner[i * OUT + j] = d[(i + 1) * SIDE + j + 1];
        on_both_sides<OUT, SIDE, F::gradient>(
            inner, [&](int i, int j, Vec value) { store(w->at(i * SIDE + j) + to, value); });
      }
    }
  }
}

// Tiles first..first + count of y = A^T m A + bias (if any), cut at zero if `relu`.
template <class F>
void transform_output(const Map& map, const Positions& m, const float* bias, bool relu, int64_t K,
                      int64_t first, int64_t count, float* y) {
  constexpr int SIDE = F::SIDE, OUT = F::OUT;
#pragma omp for schedule(dynamic, 8)
  for (int64_t tile = 0; tile < count; tile++) {
    int64_t pixels[OUT * OUT];
    map.pixels<F, OUT>(first + tile, 0, pixels);
    for (int64_t k = 0; k < K; k += LANES) {
      Vec products[SIDE * SIDE];
      for (int at = 0; at < SIDE * SIDE; at++) products[at] = load(m.at(at) + tile * K + k);
      const Vec shift = bias ? load(bias + k) : Vec{};
      on_both_sides<SIDE, OUT, F::output>(products, [&](int i, int j, Vec value) {
        const int64_t pixel = pixels[i * OUT + j];
        if (pixel < 0) return;
        value += shift;
        store(y + pixel * K + k, relu ? (value > 0 ? value : Vec{}) : value);
      });
    }
  }
}

// Tiles in a block: few enough for their transforms to stay in the cache, and enough of them for
// the filters' to be worth a pass.
int64_t block_of(int64_t tiles, int64_t floats_per_tile, int64_t filters) {
  const int64_t budget = std::max<int64_t>(int64_t{2} << 20, 4 * filters);
  const int64_t most = std::max<int64_t>(64, budget / floats_per_tile);
  const int64_t blocks = (tiles + most - 1) / most;
  return (tiles + blocks - 1) / blocks;
}

template <class F>
void forward(const Map& map, int64_t C, int64_t K, const float* x, const float* filters,
             const float* bias, bool relu, float* y, int threads) {
  constexpr int P = F::SIDE * F::SIDE;
  const int64_t tiles = map.tiles<F>(), block = block_of(tiles, P * (C + K), P * C * K);
  Positions u(P, K, C), v(P, block, C), m(P, block, K);
#pragma omp parallel num_threads(threads)
  {
    transform_filters<F>(filters, K, C, false, u);
    for (int64_t first = 0; first < tiles; first += block) {
      const int64_t count = std::min(block, tiles - first);
      transform_input<F>(map, x, nullptr, C, first, count, &v, nullptr);
#pragma omp for schedule(dynamic, 1)
      for (int at = 0; at < P; at++)
        product(false, true, count, K, C, v.at(at), u.at(at), false, m.at(at));
      transform_output<F>(map, m, bias, relu, K, first, count, y);
    }
  }
}

template <class F>
void backward(const Map& map, int64_t C, int64_t K, const float* x, const float* filters,
              const float* y, const float* dy, float* dx, float* dfilters, float* dbias,
              int threads) {
  constexpr int P = F::SIDE * F::SIDE;
  constexpr int ONES = F::SIDE + 1;  // the position where A e A^T is the sum of e
  const int64_t tiles = map.tiles<F>(), block = block_of(tiles, P * (C + 2 * K), P * C * K);
  Positions u(P, dx ? K : 0, C), du(P, K, C);
  Positions v(P, block, C), w(P, block, K), e(P, dx ? block : 0, K);
  std::fill(dbias, dbias + K, 0.f);
#pragma omp parallel num_threads(threads)
  {
    if (dx) transform_filters<F>(filters, K, C, true, u);
    for (int64_t first = 0; first < tiles; first += block) {
      const int64_t count = std::min(block, tiles - first);
      transform_input<F>(map, x, nullptr, C, first, count, &v, nullptr);
      transform_input<F>(map, dy, y, K, first, count, dx ? &e : nullptr, &w);
#pragma omp for schedule(static) nowait
      for (int64_t k = 0; k < K; k += LANES) {
        Vec sum{};
        for (int64_t tile = 0; tile < count; tile++) sum += load(w.at(ONES) + tile * K + k);
        store(dbias + k, load(dbias + k) + sum);
      }
#pragma omp for schedule(dynamic, 1)
      for (int at = 0; at < P; at++) {
        product(true, false, K, C, count, w.at(at), v.at(at), first > 0, du.at(at));
        if (dx)  // v is free by now
          product(false, false, count, C, K, e.at(at), u.at(at), false, v.at(at));
      }
      if (dx) transform_output<F>(map, v, nullptr, false, C, first, count, dx);
    }
    transform_filter_gradients<F>(du, K, C, dfilters);
  }
}

}  // namespace

// Both return whether there was memory.

// x [images, height, width, C], filters [K, 3, 3, C], bias [K] or null, y [images, height, width, K]
extern "C" bool winograd_forward(int out, int64_t images, int64_t height, int64_t width,
                                 int64_t dilation, int64_t C, int64_t K, const float* x,
                                 const float* filters, const float* bias, bool relu, float* y,
                                 int threads) try {
  const Map map{images, height, width, dilation};
  (out == 4 ? forward<F4> : forward<F6>)(map, C, K, x, filters, bias, relu, y, threads);
  return true;
} catch (const std::bad_alloc&) {
  return false;
}

// y is the output where it was cut at zero, else null; dx may be null, and is not computed then.
extern "C" bool winograd_backward(int out, int64_t images, int64_t height, int64_t width,
                                  int64_t dilation, int64_t C, int64_t K, const float* x,
                                  const float* filters, const float* y, const float* dy, float* dx,
                                  float* dfilters, float* dbias, int threads) try {
  const Map map{images, height, width, dilation};
  (out == 4 ? backward<F4> : backward<F6>)(map, C, K, x, filters, y, dy, dx, dfilters, dbias,
                                           threads);
  return true;
} catch (const std::bad_alloc&) {
  return false;
}
