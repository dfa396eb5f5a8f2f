/* A second thread. It waits for work by looking again and again, for about two milliseconds, and then asleep. The next update
   mostly comes sooner, and a system that wakes a thread often puts it on the processor of the one that wakes it. */
#pragma once
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

class Team {
  public:
    Team() : process(identity()), worker([this] { wait_for_work(); }) {}
    ~Team() {
        hand_over(nullptr, nullptr);
        worker.join();
    }
    /* False in the child of a fork, where there is no thread to wait for: a team is neither run nor deleted there. */
    bool is_whole() const { return process == identity(); }

    /* Calls work(0, data) here and work(1, data) on the other thread, and returns when both are done. */
    void run(void (*work)(int, void *), void *data) {
        if (!is_whole()) {
            work(0, data);
            work(1, data);
            return;
        }
        hand_over(work, data);
        work(0, data);
        const uint64_t last = handed.load(std::memory_order_relaxed);
        /* Where more threads run than there are processors, the other one may be waiting for this one to make room. */
        for (int look = 0; finished.load(std::memory_order_acquire) != last; look++)
            if (look < LOOKS)
                pause();
            else
                std::this_thread::yield();
    }

  private:
    static constexpr int LOOKS = 200000;

    static int64_t identity() {
#if defined(__unix__) || defined(__APPLE__)
        return (int64_t)getpid();
#else
        return 0;
#endif
    }
    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    void hand_over(void (*next)(int, void *), void *next_data) {
        function = next, argument = next_data;
        {
            std::lock_guard<std::mutex> lock(mutex);
            handed.fetch_add(1, std::memory_order_release);
        }
        if (asleep.load()) wake.notify_one();
    }

    void wait_for_work() {
        for (uint64_t done = 0;;) {
            for (int look = 0; look < LOOKS && handed.load(std::memory_order_acquire) == done; look++) pause();
            if (handed.load(std::memory_order_acquire) == done) {
                std::unique_lock<std::mutex> lock(mutex);
                asleep.store(true);
                wake.wait(lock, [&] { return handed.load(std::memory_order_acquire) != done; });
                asleep.store(false);
            }
            done++;
            if (!function) return;
            function(1, argument);
            finished.store(done, std::memory_order_release);
        }
    }

    const int64_t process;
    void (*function)(int, void *) = nullptr;
    void *argument = nullptr;
    std::atomic<uint64_t> handed{0}, finished{0};
    std::atomic<bool> asleep{false};
    std::mutex mutex;
    std::condition_variable wake;
    std::thread worker;
};
