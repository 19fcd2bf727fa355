package main

import (
	"fmt"
	"time"
)

// report prints what was measured, a line for each peer.
func report(all []result) {
	fmt.Println("| services | mode | | start to serving | processor of that | memory | one endpoint changes, median | worst | processor of one |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|")
	for _, r := range all {
		fmt.Printf("| %d | %s | %s | %.2f s | %.2f s | %.1f MB | %s | %s | %s |\n", r.size, r.mode, r.peer, r.first.Seconds(), r.firstCPU.Seconds(), r.memory,
			milliseconds(quantile(r.changes, 0.5)), milliseconds(quantile(r.changes, 1)), milliseconds(r.changeCPU))
	}
	if all[0].direct.rate == 0 {
		return
	}
	fmt.Println()
	fmt.Println("| services | mode | | connections per second, direct | through a service | ratio | p50 direct, service | p99 direct, service |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for _, r := range all {
		fmt.Printf("| %d | %s | %s | %.0f | %.0f | %.2f | %s, %s | %s, %s |\n", r.size, r.mode, r.peer, r.direct.rate, r.service.rate, r.service.rate/r.direct.rate,
			milliseconds(r.direct.p50), milliseconds(r.service.p50), milliseconds(r.direct.p99), milliseconds(r.service.p99))
	}
}

func milliseconds(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}
