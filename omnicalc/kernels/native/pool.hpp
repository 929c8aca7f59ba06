// A pool of threads for loops over independent pieces of work.
//
// Pieces are handed out one by one, so a thread that shares its core with another program simply does fewer of them. A
// thread without work spins for some microseconds and then sleeps. The caller works too and waits only for pieces that
// were begun: no thread has to wake up for a loop to end. An exception of any piece comes out of the loop, once all pieces
// that were begun have ended. A forked child has none of these threads, and needs a pool of its own.
#pragma once
#include <unistd.h>

#include <atomic>
#include <exception>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

class Pool {
public:
    explicit Pool(int threads) : threads_(threads) {
        workers_.reserve(threads > 1 ? threads - 1 : 0);
        try {
            for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { work(t); });
        } catch (const std::system_error&) {  // no more threads to be had: those there are do the work
        }
    }
    ~Pool() {
        if (!here()) {  // the parent's threads would be waited for without end
            new std::vector<std::thread>(std::move(workers_));
            return;
        }
        stop_ = true;
        ticket_.fetch_add(1ull << 32);
        ticket_.notify_all();
        for (auto& worker : workers_) worker.join();
    }
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;
    // Whether it was made in this process for that many threads.
    bool serves(int threads) const { return threads_ == threads && here(); }

    // Calls body(piece, thread) for every piece in 0 .. n-1, in any order, from any thread.
    template <class Body>
    void run(int n, const Body& body) {
        const uint64_t generation = (ticket_.load() >> 32) + 1;
        Loop& loop = loops_[generation % LOOPS];
        loop.call = [](const void* f, int piece, int thread) { (*static_cast<const Body*>(f))(piece, thread); };
        loop.body = &body;
        loop.n = n;
        loop.done = 0;
        ticket_ = generation << 32;  // publishes the loop
        if (!workers_.empty() && n > 1) ticket_.notify_all();
        take(0);
        for (int spins = 0; loop.done.load(std::memory_order_acquire) < n; ++spins)
            if (spins > SPINS) std::this_thread::yield();
            else pause();
        if (failed_.exchange(false)) std::rethrow_exception(std::exchange(error_, nullptr));
    }

private:
    static constexpr int LOOPS = 4, SPINS = 2000;
    struct Loop {
        void (*call)(const void*, int, int);
        const void* body;
        std::atomic<int> n{0};
        std::atomic<int> done{0};
    };

    bool here() const { return owner_ == getpid(); }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ __volatile__("isb");  // some tens of cycles, where the instruction "yield" does nothing
#endif
    }

    // Does pieces while there are any, and returns the loop that has none left. The upper half of the ticket names the
    // loop, the lower half its next piece; whoever raises the ticket by one owns the piece.
    uint64_t take(int thread) {
        for (;;) {
            uint64_t ticket = ticket_.load(std::memory_order_acquire);
            Loop& loop = loops_[(ticket >> 32) % LOOPS];
            if (stop_ || (int)(uint32_t)ticket >= loop.n) return ticket >> 32;
            if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
            try {
                loop.call(loop.body, (int)(uint32_t)ticket, thread);
            } catch (...) {
                if (!failed_.exchange(true)) error_ = std::current_exception();
            }
            loop.done.fetch_add(1, std::memory_order_acq_rel);
        }
    }

    void work(int thread) {
        while (!stop_) {
            const uint64_t exhausted = take(thread);
            int spins = 0;
            for (;;) {
                const uint64_t ticket = ticket_.load(std::memory_order_acquire);
                if (ticket >> 32 != exhausted || stop_) break;
                if (++spins < SPINS) pause();
                else ticket_.wait(ticket);
            }
        }
    }

    std::atomic<uint64_t> ticket_{0};
    std::atomic<bool> stop_{false};
    Loop loops_[LOOPS];
    const int threads_;
    const pid_t owner_ = getpid();
    std::atomic<bool> failed_{false};
    std::exception_ptr error_;
    std::vector<std::thread> workers_;
};
