# SPDX-License-Identifier: MIT
# The demo's picture: a column of panels per act, a line per mode. Arguments: the directory of the measurements, the
# picture's name, the length of an act in seconds, the heading.
dir = ARG1
out = ARG2
seconds = real(ARG3)
acts = 'cold expire kill switch'
modes = 'none habit shoal'
modes_with_cache = 'habit shoal'
modes_of_switch = 'naive fallback cold'
set terminal pngcairo size 2200, 1350 font 'sans,10'
set output out
set datafile separator comma

array titles[4] = ['1. cold start on the hot keys', '2. the hot keys expire together', \
	'3. the loader of the hottest key is killed, three times', '4. the key format changes under full load']
title_of(mode) = mode eq 'none' ? 'no cache' : mode eq 'habit' ? 'delete, then refill' : mode eq 'shoal' ? 'shoal' : \
	mode eq 'naive' ? 'naive prefix' : mode eq 'fallback' ? 'shoal, fallback' : 'shoal, cold, 4 loads'
colour_of(mode) = mode eq 'none' ? '#7f7f7f' : mode eq 'habit' || mode eq 'naive' ? '#d95f02' : \
	mode eq 'cold' ? '#66a61e' : '#1b7fbd'
file_of(act, mode) = sprintf('%s/%s-%s.csv', dir, act, mode)
cached_of(act) = act eq 'switch' ? modes_of_switch : modes_with_cache
modes_of(act) = act eq 'expire' || act eq 'switch' ? cached_of(act) : modes

# A mean over half a second: single ticks of 100 ms see a handful of queries. `i` is the number of the point.
mean(i, x) = (i == 0 ? forget(0) : 0, m5 = m4, m4 = m3, m3 = m2, m2 = m1, m1 = x, (m1 + m2 + m3 + m4 + m5) / 5.0)
forget(x) = (m1 = 0, m2 = 0, m3 = 0, m4 = 0, x)

set multiplot layout 4, 4 columnsfirst title ARG4 noenhanced font 'sans,13' \
	margins 0.042, 0.99, 0.045, 0.93 spacing 0.035, 0.045
set grid ytics lc rgb '#dddddd'
set tics nomirror
set border 3
set key top left horizontal samplen 2 spacing 1.1
set format x '%g'

do for [i = 1:words(acts)] {
	act = word(acts, i)
	unset arrow
	if (act eq 'expire') {
		set arrow from seconds / 6.0, graph 0 to seconds / 6.0, graph 1 nohead dt 3 lc rgb '#444444'
	}
	if (act eq 'switch') {
		set arrow from seconds / 4.0, graph 0 to seconds / 4.0, graph 1 nohead dt 3 lc rgb '#444444'
	}
	if (act eq 'kill') {
		do for [k = 1:3] {
			t = seconds * (k * 0.3 - 0.2)
			set arrow from t, graph 0 to t, graph 1 nohead dt 3 lc rgb '#444444'
		}
	}
	set xrange [0:seconds]
	unset xlabel

	set title titles[i] font 'sans,11'
	set logscale y
	set yrange [0.01:100000]
	set format y '%g'
	if (i == 1) { set ylabel 'latency, ms (thick p99, thin p50)' } else { unset ylabel }
	plot for [mode in modes_of(act)] file_of(act, mode) using 1:5 skip 1 with lines lw 2 \
		lc rgb colour_of(mode) title title_of(mode), \
		for [mode in modes_of(act)] file_of(act, mode) using 1:4 skip 1 with lines lw 0.7 \
		lc rgb colour_of(mode) notitle

	unset title
	unset logscale y
	set yrange [0:*]
	if (i == 1) { set ylabel 'database queries per second' }
	plot for [mode in modes_of(act)] file_of(act, mode) using 1:(mean($0, $7 * 10)) skip 1 with lines lw 2 \
		lc rgb colour_of(mode) notitle

	set yrange [0:105]
	if (i == 1) { set ylabel 'hit rate, %' }
	plot for [mode in cached_of(act)] file_of(act, mode) using 1:8 skip 1 with linespoints lw 2 pt 7 ps 0.3 \
		lc rgb colour_of(mode) notitle

	set logscale y
	set yrange [1:200000]
	set xlabel 'seconds'
	if (i == 1) { set ylabel 'answers per second' }
	plot for [mode in modes_of(act)] file_of(act, mode) using 1:($2 > 0 ? $2 * 10 : NaN) skip 1 \
		with linespoints lw 2 pt 7 ps 0.3 lc rgb colour_of(mode) notitle
}
unset multiplot
