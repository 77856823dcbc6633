<?php
// SPDX-License-Identifier: MIT
// Eight processes want the same key at once; one of them asks the database.
//
//     php -d ffi.enable=1 first.php           forks them
//     php -d ffi.enable=1 first.php shop      is one of as many as are started: they share the cache of that name

$shoal = FFI::cdef('
    struct shoal_policy { uint32_t fresh_ms, stale_ms, error_ms, retry_ms, wait_ms, lease_ms, rest[14]; };
    struct shoal_value { const char *data; size_t size; uint64_t rest[10]; };
    int shoal_open(const char *name, void *config, struct shoal **cache);
    int shoal_keyspace_open(struct shoal *, const char *name, uint32_t version, struct shoal_policy *,
                            struct shoal_keyspace **);
    int shoal_begin(struct shoal_keyspace *, const char *key, size_t, struct shoal_load **, struct shoal_value *);
    int shoal_wait(struct shoal_load *, uint32_t timeout_ms, struct shoal_value *);
    int shoal_load_publish(struct shoal_load *, const char *data, size_t);
    int shoal_load_fail(struct shoal_load *, int code);
    void shoal_load_cancel(struct shoal_load *);
    void shoal_release(struct shoal_value *);
    const char *shoal_strerror(int);
', 'libshoal.so.0');
const OK = 0, REFRESH = 2, LEAD = 3, WAIT = 4, FOREVER = 0xFFFFFFFE, EIO = 5;

function check(int $outcome): void
{
    global $shoal;
    if ($outcome !== OK) {
        throw new RuntimeException('shoal: ' . $shoal->shoal_strerror($outcome));
    }
}

function fetch($keyspace, string $key, callable $loader): string
{
    global $shoal;
    $load = $shoal->new('struct shoal_load *');
    $value = $shoal->new('struct shoal_value');
    $outcome = $shoal->shoal_begin($keyspace, $key, strlen($key), FFI::addr($load), FFI::addr($value));
    if ($outcome === WAIT) {
        $outcome = $shoal->shoal_wait($load, FOREVER, FFI::addr($value));
        if ($outcome < 0) {
            $shoal->shoal_load_cancel($load);
        }
    }
    if ($outcome === LEAD || $outcome === REFRESH) {
        $shoal->shoal_release(FFI::addr($value));
        try {
            $data = $loader($key);
        } catch (Throwable $error) {
            $shoal->shoal_load_fail($load, EIO); // the others get it, or the stale value
            throw $error;
        }
        $shoal->shoal_load_publish($load, $data, strlen($data)); // stored or not, we have it
        return $data;
    }
    check($outcome);
    $data = FFI::string($value->data, $value->size);
    $shoal->shoal_release(FFI::addr($value));
    return $data;
}

function load_profile(string $key): string
{
    usleep(100 * 1000); // a slow query
    return "$key, as process " . getmypid() . ' found it';
}

$name = $argv[1] ?? null;
$cache = $shoal->new('struct shoal *');
$profiles = $shoal->new('struct shoal_keyspace *');
$policy = $shoal->new('struct shoal_policy');
$policy->fresh_ms = 30000;
$policy->stale_ms = 300000;
$policy->wait_ms = 60000;
check($shoal->shoal_open($name, null, FFI::addr($cache)));
check($shoal->shoal_keyspace_open($cache, 'user.profile', 1, FFI::addr($policy), FFI::addr($profiles)));

$child = 0;
for ($i = 0; $name === null && $i < 8 && ($child = pcntl_fork()) !== 0; $i++);
if ($child === 0) {
    // one write, or lines of several processes mix
    fwrite(STDOUT, getmypid() . ': ' . fetch($profiles, 'user:7', 'load_profile') . "\n");
    exit(0);
}

$failed = 0;
while (pcntl_wait($status) > 0) {
    $failed |= $status;
}
exit($failed ? 1 : 0);
