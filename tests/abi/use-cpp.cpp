/* SPDX-License-Identifier: MIT */
/* The same header and library from C++11, in its own idiom: owners, lambdas, strings, threads. */
#include <atomic>
#include <chrono>
#include <memory>
#include <shoal.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <unistd.h>
#include <vector>

#include "tap.h"

static_assert(std::is_standard_layout<shoal_value>::value && std::is_trivial<shoal_config>::value, "plain structs");

using cache_ptr = std::unique_ptr<shoal, decltype(&shoal_close)>;

class value {
public:
	value() : raw_() {}
	~value() { shoal_release(&raw_); }
	value(const value &) = delete;
	value &operator=(const value &) = delete;
	shoal_value *out()
	{
		shoal_release(&raw_);
		raw_ = shoal_value();
		return &raw_;
	}
	const shoal_value *operator->() const { return &raw_; }
	std::string str() const { return std::string(static_cast<const char *>(raw_.data), raw_.size); }

private:
	shoal_value raw_;
};

static cache_ptr open_cache(const char *name, const shoal_config &config)
{
	shoal *cache = nullptr;
	int outcome = shoal_open(name, &config, &cache);

	if (outcome != SHOAL_OK)
		throw std::runtime_error(shoal_strerror(outcome));
	return cache_ptr(cache, shoal_close);
}

static shoal_keyspace *open_keyspace(shoal *cache, const char *name)
{
	shoal_policy policy = shoal_policy();
	shoal_keyspace *keyspace = nullptr;

	policy.stale_ms = 60000;
	policy.early = -1;
	int outcome = shoal_keyspace_open(cache, name, 1, &policy, &keyspace);
	if (outcome != SHOAL_OK)
		throw std::runtime_error(shoal_strerror(outcome));
	return keyspace;
}

static void plain(shoal_keyspace *keyspace)
{
	const std::string key("plain\0key", 9), text = "some text";
	value v;
	std::vector<char> buffer(64);
	std::size_t size = 0;

	check(shoal_get(keyspace, key.data(), key.size(), v.out()) == SHOAL_MISS, "miss");
	check(shoal_set(keyspace, key.data(), key.size(), text.data(), text.size()) == SHOAL_OK, "set");
	check(shoal_get(keyspace, key.data(), key.size(), v.out()) == SHOAL_OK && v.str() == text, "get");
	check(v->freshness == SHOAL_FRESH && v->source == SHOAL_HIT, "fresh");
	check(shoal_get(keyspace, "plain", 5, v.out()) == SHOAL_MISS, "a key may hold a zero byte");
	check(shoal_read(keyspace, key.data(), key.size(), buffer.data(), buffer.size(), &size) == SHOAL_OK &&
		      std::string(buffer.data(), size) == text,
	      "read");
	check(shoal_expire(keyspace, key.data(), key.size()) == SHOAL_OK, "expire");
	check(shoal_get(keyspace, key.data(), key.size(), v.out()) == SHOAL_OK && v->freshness == SHOAL_STALE, "stale");
	check(shoal_delete(keyspace, key.data(), key.size()) == SHOAL_OK, "delete");
	check(shoal_get(keyspace, key.data(), key.size(), v.out()) == SHOAL_MISS, "gone");
}

static void threads(shoal_keyspace *keyspace)
{
	std::atomic<int> loads(0), good(0);
	std::vector<std::thread> crowd;
	shoal_loader *loader = [](shoal_load *load, const void *, size_t, void *arg) -> int {
		static_cast<std::atomic<int> *>(arg)->fetch_add(1);
		std::this_thread::sleep_for(std::chrono::milliseconds(20)); /* so that the others meet it */
		return shoal_load_publish(load, "shared", 6);
	};

	for (int i = 0; i < 8; i++)
		crowd.emplace_back([&] {
			value v;
			if (shoal_fetch(keyspace, "crowd", 5, loader, &loads, v.out()) == SHOAL_OK &&
			    v.str() == "shared")
				good++;
		});
	for (auto &t : crowd)
		t.join();
	check(good == 8, "eight threads have the value");
	check(loads == 1, "one of them loaded it");
}

static void steps(shoal_keyspace *keyspace)
{
	shoal_load *lead = nullptr, *wait = nullptr;
	value v;

	check(shoal_begin(keyspace, "steps", 5, &lead, v.out()) == SHOAL_LEAD, "lead");
	check(shoal_begin(keyspace, "steps", 5, &wait, v.out()) == SHOAL_WAIT, "wait");
	char *space = static_cast<char *>(shoal_load_reserve(lead, 100));
	check(space != nullptr, "reserve");
	if (space)
		std::char_traits<char>::copy(space, "in place", 8);
	check(shoal_load_commit(lead, 8) == SHOAL_OK, "commit");
	check(shoal_wait(wait, 1000, v.out()) == SHOAL_OK && v.str() == "in place", "the waiter has it");
}

static void observe(shoal *cache)
{
	std::vector<std::string> keys;
	shoal_visit *visit = [](const shoal_entry *entry, void *arg) -> int {
		static_cast<std::vector<std::string> *>(arg)->emplace_back(static_cast<const char *>(entry->key.data),
		                                                           entry->key.size);
		return 0;
	};
	struct shoal_stats stats; /* `struct`, since a function has that name, too */

	check(shoal_scan(cache, nullptr, visit, &keys) == SHOAL_OK && keys.size() == 2, "scan");
	check(shoal_stats(cache, &stats) == SHOAL_OK && stats.entries == 2 && stats.total.loads == 2, "statistics");
}

int main()
{
	try {
		shoal_config config = shoal_config();
		config.size = 4 << 20;
		cache_ptr cache = open_cache(nullptr, config);
		shoal_keyspace *keyspace = open_keyspace(cache.get(), "cpp");
		plain(keyspace);
		threads(keyspace);
		steps(keyspace);
		observe(cache.get());

		const std::string name = "abi-cpp-" + std::to_string(getpid());
		config.flags = SHOAL_EXCLUSIVE;
		cache_ptr named = open_cache(name.c_str(), config);
		check(shoal_unlink(name.c_str()) == SHOAL_OK, "a named segment");
		try {
			config.flags = SHOAL_ATTACH;
			open_cache(name.c_str(), config);
			check(false, "attaching what has no name throws");
		} catch (const std::runtime_error &e) {
			check(e.what() == std::string(shoal_strerror(SHOAL_ERR_NOT_FOUND)),
			      "attaching what has no name throws");
		}
	} catch (const std::exception &e) {
		printf("# %s\n", e.what());
		check(false, "no exception");
	}
	return done();
}
