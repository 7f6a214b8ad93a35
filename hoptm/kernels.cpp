// What surrounds the matrix products of a ConvNet's first- and second-order passes: the transforms of Winograd's
// convolution, and norm + ReLU + 2 x 2 mean in one go, each with its tangent and its adjoint.
//
// Maps are channels last, (count, side, side, channels), channels filled up with zeros to whole vectors of 64 bytes.
// A tangent (the derivative along a direction of the parameters) is written with a 1: y1 belongs to y.
#include <cmath>
#include <vector>

namespace {

// --- Winograd's F(4 x 4, 3 x 3) (Lavin and Gray, 2016): four outputs from six inputs by six products a row ----------

template <int R, int C> struct Matrix {
    double at[R][C] = {};
    static constexpr int rows = R, columns = C;
};

struct Transforms {
    Matrix<6, 6> input;
    Matrix<6, 3> weight;
    Matrix<4, 6> output;
};

// Cook-Toom at 0, +-5/8, +-3/2 and infinity; these points halve the rounding error of the usual 0, +-1, +-2.
constexpr Transforms cook_toom() {
    constexpr double points[5] = {0, 0.625, -0.625, 1.5, -1.5};
    Transforms found;
    for (int i = 0; i < 6; i++) {
        double product[6] = {1}, scale = 1, power = 1;  // product: of (x - q) over the other points, lowest power first
        int degree = 0;
        for (int j = 0; j < 5; j++) {
            if (j == i) continue;
            degree++;
            for (int k = degree; k >= 0; k--) product[k] = (k > 0 ? product[k - 1] : 0) - points[j] * product[k];
            if (i < 5) scale *= points[i] - points[j];
        }
        for (int k = 0; k < 6; k++) found.input.at[i][k] = product[k];
        for (int k = 0; k < 4; k++, power *= i < 5 ? points[i] : 0) {
            found.output.at[k][i] = i < 5 ? power : k == 3;
            if (k < 3) found.weight.at[i][k] = i < 5 ? power / scale : k == 2;
        }
    }
    return found;
}

template <int R, int C> constexpr Matrix<C, R> transposed(const Matrix<R, C>& given) {
    Matrix<C, R> turned;
    for (int i = 0; i < R; i++)
        for (int j = 0; j < C; j++) turned.at[j][i] = given.at[i][j];
    return turned;
}

constexpr Transforms all = cook_toom();
constexpr auto IN = all.input, IN_T = transposed(all.input);
constexpr auto OUT = all.output;
constexpr auto OUT_T = transposed(all.output);
constexpr auto WEIGHT = all.weight;
constexpr auto WEIGHT_T = transposed(all.weight);

// As wide as the processor's own: GCC takes a wider vector's comparisons apart, number by number.
#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif

template <class T> struct Lanes {
    typedef T Vector __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
    static constexpr int count = BYTES / sizeof(T);
};
template <class T> using Vec = typename Lanes<T>::Vector;
template <class T> inline Vec<T>& vec(T* at) { return *reinterpret_cast<Vec<T>*>(at); }
template <class T> inline const Vec<T>& vec(const T* at) { return *reinterpret_cast<const Vec<T>*>(at); }

// out (R x R) = L in (C x C) L^T, for as many channels as a vector holds.
template <const auto& L, class T> inline void sandwich(const Vec<T>* in, Vec<T>* out) {
    constexpr int R = L.rows, C = L.columns;
    Vec<T> half[R * C];
#pragma GCC unroll 6
    for (int i = 0; i < R; i++)
#pragma GCC unroll 6
        for (int j = 0; j < C; j++) {
            Vec<T> sum = {};
#pragma GCC unroll 6
            for (int k = 0; k < C; k++)
                if (L.at[i][k] != 0) sum += T(L.at[i][k]) * in[k * C + j];
            half[i * C + j] = sum;
        }
#pragma GCC unroll 6
    for (int i = 0; i < R; i++)
#pragma GCC unroll 6
        for (int j = 0; j < R; j++) {
            Vec<T> sum = {};
#pragma GCC unroll 6
            for (int k = 0; k < C; k++)
                if (L.at[j][k] != 0) sum += half[i * C + k] * T(L.at[j][k]);
            out[i * R + j] = sum;
        }
}

// The pixels that a tile reads or writes: pixel (r, c) of a SPAN x SPAN patch, or null outside the map.
template <int SPAN, int BEFORE, class T> inline void patch(T* map, long side, long channels, long row, long column, T** at) {
    for (int r = 0; r < SPAN; r++)
        for (int c = 0; c < SPAN; c++) {
            long i = 4 * row - BEFORE + r, j = 4 * column - BEFORE + c;
            at[r * SPAN + c] = i >= 0 && j >= 0 && i < side && j < side ? map + (i * side + j) * channels : nullptr;
        }
}

// A map to its tiles (36, count * tiles, channels): the transform of inputs (IN), or the adjoint of that of outputs (OUT_T).
template <const auto& L, int BEFORE, class T> void to_tiles(const T* map, T* tiles, long count, long side, long channels) {
    constexpr int span = L.columns;
    const long across = (side + 3) / 4, step = count * across * across * channels;
    const T* from[span * span];
    Vec<T> in[span * span], out[36];
    for (long image = 0; image < count; image++, map += side * side * channels)
        for (long row = 0; row < across; row++)
            for (long column = 0; column < across; column++, tiles += channels) {
                patch<span, BEFORE>(map, side, channels, row, column, from);
                for (long c = 0; c < channels; c += Lanes<T>::count) {
                    for (int i = 0; i < span * span; i++) in[i] = from[i] ? vec(from[i] + c) : Vec<T>{};
                    sandwich<L, T>(in, out);
                    for (int i = 0; i < 36; i++) vec(tiles + i * step + c) = out[i];
                }
            }
}

// Tiles to a map: the transform of outputs (OUT), or the adjoint of that of inputs (IN_T), where tiles overlap and add up.
template <const auto& L, int BEFORE, class T> void from_tiles(const T* tiles, T* map, long count, long side, long channels) {
    constexpr int span = L.rows;
    const long across = (side + 3) / 4, step = count * across * across * channels;
    T* to[span * span];
    Vec<T> in[36], out[span * span];
    if (BEFORE)
        for (long i = 0; i < count * side * side * channels; i++) map[i] = 0;
    for (long image = 0; image < count; image++, map += side * side * channels)
        for (long row = 0; row < across; row++)
            for (long column = 0; column < across; column++, tiles += channels) {
                patch<span, BEFORE>(map, side, channels, row, column, to);
                for (long c = 0; c < channels; c += Lanes<T>::count) {
                    for (int i = 0; i < 36; i++) in[i] = vec(tiles + i * step + c);
                    sandwich<L, T>(in, out);
                    for (int i = 0; i < span * span; i++)
                        if (to[i]) vec(to[i] + c) = BEFORE ? vec(to[i] + c) + out[i] : out[i];
                }
            }
}

// Weights (inputs, 9, channels) to (36, rows, channels) with WEIGHT, and back with its transpose; rows >= inputs are left.
template <const auto& L, class T> void weights(const T* given, T* made, long inputs, long rows, long channels) {
    constexpr bool forward = L.rows == 6;
    Vec<T> in[L.columns * L.columns], out[L.rows * L.rows];
    for (long row = 0; row < inputs; row++)
        for (long c = 0; c < channels; c += Lanes<T>::count) {
            auto place = [=](int i, bool nine) { return nine ? (row * 9 + i) * channels + c : (i * rows + row) * channels + c; };
            for (int i = 0; i < L.columns * L.columns; i++) in[i] = vec(given + place(i, forward));
            sandwich<L, T>(in, out);
            for (int i = 0; i < L.rows * L.rows; i++) vec(made + place(i, !forward)) = out[i];
        }
}

// --- the first layer: its few channels are spread out, (count, inputs * 9, side * side), and one product does the rest ---

template <bool BACK, class T> void spread(T* images, T* rows, long count, long inputs, long side) {
    if (BACK)
        for (long i = 0; i < count * inputs * side * side; i++) images[i] = 0;
    for (long map = 0; map < count * inputs; map++, images += side * side)
        for (long shift = 0; shift < 9; shift++)
            for (long row = 0; row < side; row++, rows += side) {
                const long from = row + shift / 3 - 1, right = shift % 3 - 1;
                for (long column = 0; column < side; column++) {
                    const long at = column + right;
                    const bool inside = from >= 0 && from < side && at >= 0 && at < side;
                    if (BACK && inside) images[from * side + at] += rows[column];
                    if (!BACK) rows[column] = inside ? images[from * side + at] : T(0);
                }
            }
}

// --- norm, ReLU and 2 x 2 mean ------------------------------------------------------------------------------------------

// d = y + shift is centred, z = rate d is normalised; d1 = y1 + shift1, z1 = rate d1 + turn d. A row of `channels` each.
enum { RATE, SHIFT, SHIFT1, TURN, SUM, SUM1, STATISTICS };
enum { BIAS, WEIGHT_ROW, OFFSET, PARAMETERS };

struct Shape {
    long count, side, channels, real, groups;  // real: channels without the filling; groups 0: no norm
};

template <bool TANGENT, class T> void statistics(const Shape& s, const T* y, const T* y1, const T* p, const T* p1, T* stats) {
    const long C = s.channels, area = s.side * s.side, step = Lanes<T>::count;
    std::vector<T> sum(C), sum1(C), square(C), cross(C);
    T *shift = stats + SHIFT * C, *shift1 = stats + SHIFT1 * C;
    for (long c = 0; c < C; c += step)
        for (long row = 0; row < s.side; row++) {  // row by row: one running sum over a large map would lose digits
            Vec<T> part = {}, part1 = {};
            for (long i = row * s.side; i < (row + 1) * s.side; i++) {
                part += vec(y + i * C + c);
                if (TANGENT) part1 += vec(y1 + i * C + c);
            }
            vec(&sum[c]) += part, vec(&sum1[c]) += part1;
        }
    for (long c = 0; c < STATISTICS * C; c++) stats[c] = c / C == RATE;  // the filling must not divide by 0
    const long groups = s.groups ? s.groups : s.real, each = s.real / groups;
    const T size = T(each * area);
    for (long g = 0; g < groups; g++) {
        T mean = 0, mean1 = 0;
        for (long c = g * each; c < (g + 1) * each && s.groups; c++) {
            mean += (sum[c] + area * p[BIAS * C + c]) / size;
            if (TANGENT) mean1 += (sum1[c] + area * p1[BIAS * C + c]) / size;
        }
        for (long c = g * each; c < (g + 1) * each; c++) {
            shift[c] = p[BIAS * C + c] - mean;
            stats[SUM * C + c] = sum[c] + area * shift[c];
            if (TANGENT) shift1[c] = p1[BIAS * C + c] - mean1;
            if (TANGENT) stats[SUM1 * C + c] = sum1[c] + area * shift1[c];
        }
    }
    for (long c = 0; c < C && s.groups; c += step)
        for (long row = 0; row < s.side; row++) {
            Vec<T> part = {}, part1 = {};
            for (long i = row * s.side; i < (row + 1) * s.side; i++) {
                const Vec<T> d = vec(y + i * C + c) + vec(shift + c);
                part += d * d;
                if (TANGENT) part1 += d * (vec(y1 + i * C + c) + vec(shift1 + c));
            }
            vec(&square[c]) += part, vec(&cross[c]) += part1;
        }
    for (long g = 0; g < groups; g++) {
        T variance = 0, along = 0;
        for (long c = g * each; c < (g + 1) * each; c++) variance += square[c] / size, along += cross[c] / size;
        const T rate = s.groups ? 1 / std::sqrt(variance + T(1e-5)) : T(1);
        for (long c = g * each; c < (g + 1) * each; c++) {
            stats[RATE * C + c] = rate;
            stats[TURN * C + c] = s.groups ? -rate * rate * rate * along : T(0);
        }
    }
}

// a = A d + offset before the ReLU, and a1 = A d1 + B d + offset1.
template <bool TANGENT, class T> struct Affine {
    Vec<T> shift, shift1, A, B, offset, offset1;
    Affine(const T* stats, const T* p, const T* p1, long C, long c) {
        const Vec<T> rate = vec(stats + RATE * C + c), weight = vec(p + WEIGHT_ROW * C + c);
        shift = vec(stats + SHIFT * C + c), A = weight * rate, offset = vec(p + OFFSET * C + c);
        if (!TANGENT) return;
        shift1 = vec(stats + SHIFT1 * C + c), offset1 = vec(p1 + OFFSET * C + c);
        B = vec(p1 + WEIGHT_ROW * C + c) * rate + weight * vec(stats + TURN * C + c);
    }
};

template <bool TANGENT, class T>
void forward(const Shape& s, const T* y, const T* y1, const T* p, const T* p1, T* stats, T* h, T* h1) {
    const long C = s.channels, W = s.side, half = W / 2;
    const long corner[4] = {0, C, W * C, (W + 1) * C};
    for (long image = 0; image < s.count; image++, y += W * W * C, y1 += TANGENT * W * W * C, stats += STATISTICS * C) {
        statistics<TANGENT>(s, y, y1, p, p1, stats);
        for (long c = 0; c < C; c += Lanes<T>::count) {
            const Affine<TANGENT, T> f(stats, p, p1, C, c);
            for (long cell = 0; cell < half * half; cell++) {
                const long at = (2 * (cell / half) * W + 2 * (cell % half)) * C + c;
                Vec<T> sum = {}, sum1 = {};
                for (long k : corner) {
                    const Vec<T> d = vec(y + at + k) + f.shift, a = f.A * d + f.offset;
                    sum += a <= Vec<T>{} ? Vec<T>{} : a;  // a NaN passes
                    if (TANGENT) sum1 += a <= Vec<T>{} ? Vec<T>{} : f.A * (vec(y1 + at + k) + f.shift1) + f.B * d + f.offset1;
                }
                vec(h + cell * C + c) = sum * T(0.25);
                if (TANGENT) vec(h1 + cell * C + c) = sum1 * T(0.25);
            }
        }
        h += half * half * C, h1 += TANGENT * half * half * C;
    }
}

// Sums over the pixels of an image for one vector of channels: u = dL/da, 0 where the ReLU is shut.
template <bool TANGENT, class T> struct Sums {
    Vec<T> u = {}, ud = {}, u1 = {}, u1d = {}, ud1 = {};
    Sums() = default;
    Sums(const Affine<TANGENT, T>& f, const T* y, const T* y1, const T* h, const T* h1, long W, long C, long c) {
        const long half = W / 2, corner[4] = {0, C, W * C, (W + 1) * C};
        for (long row = 0; row < half; row++) {
            Sums part;
            for (long column = 0; column < half; column++) {
                const long at = 2 * (row * W + column) * C + c, cell = (row * half + column) * C + c;
                const Vec<T> up = vec(h + cell) * T(0.25), up1 = TANGENT ? vec(h1 + cell) * T(0.25) : up;
                for (long k : corner) {
                    const Vec<T> d = vec(y + at + k) + f.shift;
                    const auto shut = f.A * d + f.offset <= Vec<T>{};
                    const Vec<T> g = shut ? Vec<T>{} : up, g1 = shut ? Vec<T>{} : up1;
                    part.u += g, part.ud += g * d;
                    if (TANGENT) part.u1 += g1, part.u1d += g1 * d, part.ud1 += g * (vec(y1 + at + k) + f.shift1);
                }
            }
            u += part.u, ud += part.ud, u1 += part.u1, u1d += part.u1d, ud1 += part.ud1;
        }
    }
};

// From h = dL/d(output) to y = dL/d(input), in place of the maps in dy, and to the three rows of dp; with tangents, dp gets theirs.
template <bool TANGENT, class T>
void backward(const Shape& s, const T* y, const T* y1, const T* p, const T* p1, const T* stats, const T* h, const T* h1, T* dy, T* dy1, T* dp) {
    const long C = s.channels, W = s.side, half = W / 2, step = Lanes<T>::count;
    const long groups = s.groups ? s.groups : s.real, each = s.real / groups;
    const T size = T(each * W * W);
    std::vector<T> u(C), ud(C), u1(C), zu1(C), mean(C), meanz(C), mean1(C), meanz1(C);
    for (long c = 0; c < PARAMETERS * C; c++) dp[c] = 0;
    for (long image = 0; image < s.count; image++, stats += STATISTICS * C) {
        for (long c = 0; c < C; c += step) {
            const Affine<TANGENT, T> f(stats, p, p1, C, c);
            const Sums<TANGENT, T> sums(f, y, y1, h, h1, W, C, c);
            const Vec<T> rate = vec(stats + RATE * C + c), turn = vec(stats + TURN * C + c);
            vec(&u[c]) = sums.u, vec(&ud[c]) = sums.ud * rate, vec(&u1[c]) = sums.u1;
            vec(&zu1[c]) = sums.u1d * rate + sums.ud1 * rate + sums.ud * turn;
            vec(dp + WEIGHT_ROW * C + c) += TANGENT ? vec(&zu1[c]) : vec(&ud[c]);
            vec(dp + OFFSET * C + c) += TANGENT ? sums.u1 : sums.u;
        }
        for (long g = 0; g < groups && s.groups; g++) {
            T m = 0, mz = 0, m1 = 0, mz1 = 0;
            for (long c = g * each; c < (g + 1) * each; c++) {
                const T w = p[WEIGHT_ROW * C + c] / size, w1 = TANGENT ? p1[WEIGHT_ROW * C + c] / size : T(0);
                m += w * u[c], mz += w * ud[c], m1 += w1 * u[c] + w * u1[c], mz1 += w1 * ud[c] + w * zu1[c];
            }
            for (long c = g * each; c < (g + 1) * each; c++) mean[c] = m, meanz[c] = mz, mean1[c] = m1, meanz1[c] = mz1;
        }
        for (long c = 0; c < C; c += step) {
            // dy = A u - rate (mean + meanz z) = A u + K d + M, and its tangent.
            const Affine<TANGENT, T> f(stats, p, p1, C, c);
            const Vec<T> rate = vec(stats + RATE * C + c), turn = vec(stats + TURN * C + c), area = Vec<T>{} + T(W * W);
            const Vec<T> K = -rate * rate * vec(&meanz[c]), M = -rate * vec(&mean[c]);
            const Vec<T> B = TANGENT ? f.B : turn, K1 = T(2) * turn / rate * K - rate * rate * vec(&meanz1[c]);
            const Vec<T> M1 = turn / rate * M - rate * vec(&mean1[c]);
            const Vec<T> flat = f.A * vec(&u[c]) + K * vec(stats + SUM * C + c) + M * area;
            const Vec<T> flat1 = f.A * vec(&u1[c]) + B * vec(&u[c]) + K * vec(stats + SUM1 * C + c) + K1 * vec(stats + SUM * C + c) + M1 * area;
            vec(dp + BIAS * C + c) += TANGENT ? flat1 : flat;
            for (long i = 0; i < W; i++)
                for (long j = 0; j < W; j++) {
                    const long at = (i * W + j) * C + c, cell = ((i / 2) * half + j / 2) * C + c;
                    const bool pooled = i < 2 * half && j < 2 * half;
                    const Vec<T> d = vec(y + at) + f.shift;
                    const auto shut = f.A * d + f.offset <= Vec<T>{};
                    const Vec<T> up = pooled ? vec(h + cell) * T(0.25) : Vec<T>{}, g = shut ? Vec<T>{} : up;
                    vec(dy + at) = f.A * g + K * d + M;
                    if (!TANGENT) continue;
                    const Vec<T> up1 = pooled ? vec(h1 + cell) * T(0.25) : Vec<T>{}, g1 = shut ? Vec<T>{} : up1;
                    vec(dy1 + at) = f.A * g1 + B * g + K * (vec(y1 + at) + f.shift1) + K1 * d + M1;
                }
        }
        y += W * W * C, dy += W * W * C, h += half * half * C;
        if (TANGENT) y1 += W * W * C, dy1 += W * W * C, h1 += half * half * C;
    }
}

}  // namespace

#define EXPORT(T, NAME)                                                                                                               \
    extern "C" {                                                                                                                      \
    void NAME##_input_tiles(const T* map, T* tiles, long n, long side, long C) { to_tiles<IN, 1>(map, tiles, n, side, C); }           \
    void NAME##_input_adjoint(const T* tiles, T* map, long n, long side, long C) { from_tiles<IN_T, 1>(tiles, map, n, side, C); }     \
    void NAME##_output_map(const T* tiles, T* map, long n, long side, long C) { from_tiles<OUT, 0>(tiles, map, n, side, C); }         \
    void NAME##_output_adjoint(const T* map, T* tiles, long n, long side, long C) { to_tiles<OUT_T, 0>(map, tiles, n, side, C); }     \
    void NAME##_weight_tiles(const T* w, T* tiles, long in, long rows, long C) { weights<WEIGHT>(w, tiles, in, rows, C); }            \
    void NAME##_weight_adjoint(const T* tiles, T* w, long in, long rows, long C) { weights<WEIGHT_T>(tiles, w, in, rows, C); }        \
    void NAME##_spread(T* images, T* rows, long n, long in, long side) { spread<false>(images, rows, n, in, side); }                  \
    void NAME##_gather(T* images, T* rows, long n, long in, long side) { spread<true>(images, rows, n, in, side); }                   \
    void NAME##_forward(const Shape* s, const T* y, const T* p, T* stats, T* h) {                                                     \
        forward<false, T>(*s, y, nullptr, p, nullptr, stats, h, nullptr);                                                             \
    }                                                                                                                                 \
    void NAME##_forward1(const Shape* s, const T* y, const T* y1, const T* p, const T* p1, T* stats, T* h, T* h1) {                   \
        forward<true, T>(*s, y, y1, p, p1, stats, h, h1);                                                                             \
    }                                                                                                                                 \
    void NAME##_backward(const Shape* s, const T* y, const T* p, const T* stats, const T* h, T* dy, T* dp) {                          \
        backward<false, T>(*s, y, nullptr, p, nullptr, stats, h, nullptr, dy, nullptr, dp);                                           \
    }                                                                                                                                 \
    void NAME##_backward1(const Shape* s, const T* y, const T* y1, const T* p, const T* p1, const T* stats, const T* h, const T* h1,  \
                          T* dy, T* dy1, T* dp) {                                                                                     \
        backward<true, T>(*s, y, y1, p, p1, stats, h, h1, dy, dy1, dp);                                                               \
    }                                                                                                                                 \
    }

EXPORT(float, f32)
EXPORT(double, f64)
