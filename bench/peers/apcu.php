<?php
// SPDX-License-Identifier: MIT
// apcu.php DIRECTORY PROCESSES: see script.h.
[, $directory, $processes] = $argv;

function value(int $number, int $size): string
{
	return pack('PP', 0, $number) . str_repeat(chr($number * 31 + 7 & 255), $size - 16);
}

$keys = file_get_contents("$directory/keys");
$names = [];
$sizes = [];
for ($i = 0; $i < strlen($keys) / 24; $i++) {
	$names[$i] = substr($keys, $i * 24, 20);
	$sizes[$i] = unpack('V', $keys, $i * 24 + 20)[1];
	if (!apcu_store($names[$i], value($i, $sizes[$i]))) {
		fprintf(STDERR, "apcu: no room for key %d\n", $i);
		exit(1);
	}
}
$words = array_values(unpack('V*', file_get_contents("$directory/requests")));

function round_of(string $access, bool $each, int $ns, int $block, int $at): array
{
	global $names, $sizes, $words;
	$count = count($words);
	$times = [];
	$operations = $hits = $depends = 0;
	$blank = str_repeat("\0", 8);
	$itself = PHP_INT_MAX;
	for ($i = 0; $i < 1000; $i++) {
		$t = hrtime(true);
		$itself = min($itself, hrtime(true) - $t);
	}
	$began = $from = hrtime(true);
	do {
		for ($i = 0; $i < $block; $i++) {
			$word = $words[$at];
			$number = $word & 0x7fffffff;
			$at = $at + 1 === $count ? 0 : $at + 1;
			if ($each)
				$t = hrtime(true);
			if ($access === 'set' || ($access === 'mixed' && $word >> 31)) {
				$hits += apcu_store($names[$number],
				                    $blank . substr(value($number, $sizes[$number]), 8)) ? 1 : 0;
			} elseif ($access === 'isolated') {
				$v = apcu_fetch($names[$number + $depends]);
				$hits += $v !== false;
				$depends = ord($v[0]);
			} else {
				$v = apcu_fetch($names[$number]);
				$hits += $v !== false;
			}
			if ($each) {
				$t = max(0, hrtime(true) - $t - $itself);
				$times[$t] = ($times[$t] ?? 0) + 1;
			}
		}
		$to = hrtime(true);
		$operations += $block;
		if (!$each) {
			$t = intdiv(($to - $from) * 1000, $block);
			$times[$t] = ($times[$t] ?? 0) + 1;
		}
		$from = $to;
	} while ($to - $began < $ns);
	$lines = "$operations $hits " . ($to - $began) . "\n";
	foreach ($times as $t => $n)
		$lines .= "$t $n\n";
	return [$lines . "end\n", $at];
}

function fetch_of(string $key, int $size, int $us): string
{
	$loaded = 0;
	$v = apcu_entry($key, function ($key) use ($size, $us, &$loaded) {
		usleep($us);
		$loaded = hrtime(true);
		return substr(str_pad($key, $size, "\7"), 0, $size);
	});
	$at = hrtime(true);
	return ($loaded ? 1 : 0) . " $loaded $at " . strlen($v) . "\n" . $v;
}

function serve(string $directory, int $number, int $at): void
{
	$in = fopen("$directory/in.$number", 'r');
	$out = fopen("$directory/out.$number", 'w');
	while (($line = fgets($in)) !== false) {
		$words = explode(' ', rtrim($line));
		if ($words[0] === 'round') {
			[$answer, $at] = round_of($words[1], (bool)$words[2], (int)$words[3], (int)$words[4], $at);
		} elseif ($words[0] === 'get') {
			$v = apcu_fetch($words[1]);
			$answer = strlen($v) . "\n" . $v;
		} else {
			$answer = fetch_of($words[1], (int)$words[2], (int)$words[3]);
		}
		fwrite($out, $answer);
		fflush($out);
	}
}

for ($i = 0; $i < $processes; $i++) {
	if (pcntl_fork() === 0) {
		serve($directory, $i, intdiv(count($words) * $i, $processes));
		exit(0);
	}
}
while (pcntl_wait($status) > 0)
	;
