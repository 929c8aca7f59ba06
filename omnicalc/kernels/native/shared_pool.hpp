// One pool of threads for all calls of a library; a call from a second thread at the same time works alone.
#pragma once
#include <algorithm>
#include <mutex>

#include "pool.hpp"

class SharedPool {
public:
    // Calls body(i, thread) for i in 0 .. n-1, in pieces of neighbours; ``threads`` says how many at most may work.
    template <class Body>
    static void run(int64_t n, int threads, const Body& body) {
        constexpr int64_t PIECE = 8;
        const int pieces = (n + PIECE - 1) / PIECE;
        const auto piece = [&](int p, int thread) {
            for (int64_t i = p * PIECE, end = std::min(i + PIECE, n); i < end; ++i) body(i, thread);
        };
        std::unique_lock<std::mutex> lock(lock_, std::try_to_lock);
        if (threads > 1 && pieces > 1 && lock.owns_lock()) return of(threads).run(pieces, piece);
        for (int p = 0; p < pieces; ++p) piece(p, 0);
    }

private:
    static Pool& of(int threads) {
        if (!pool_ || !pool_->serves(threads)) delete std::exchange(pool_, nullptr), pool_ = new Pool(threads);
        return *pool_;
    }

    static inline std::mutex lock_;
    static inline Pool* pool_ = nullptr;
};
