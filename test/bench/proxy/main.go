// Command proxy measures skiff-proxy beside kube-proxy in the same mode: on one
// kernel, fed by one API, with real connections. It prints tables.
//
// A node, a client and two hosts full of pods are network namespaces; the API
// is a server in this program that serves services and their endpoints from
// memory, so that no control plane takes the processor from what is measured.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	skiff := flag.String("skiff-proxy", "bin/skiff-proxy", "the program to measure")
	kube := flag.String("kube-proxy", "", "the program to measure it against; empty: none")
	sizes := flag.String("sizes", "100,1000,10000", "numbers of services, each with ten endpoints")
	modes := flag.String("modes", "nftables,iptables", "modes of both programs")
	only := flag.String("only", "sync,traffic", "what to measure")
	flag.Parse()

	w, err := newWorld()
	if err != nil {
		return err
	}
	defer w.close()
	var all []result
	for _, text := range strings.Split(*sizes, ",") {
		size, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("--sizes: %w", err)
		}
		for _, mode := range strings.Split(*modes, ",") {
			for _, p := range []peer{{"skiff", *skiff, skiffArguments}, {"kube-proxy", *kube, kubeArguments}} {
				if p.program == "" {
					continue
				}
				r, err := w.measure(ctx, p, mode, size, *only)
				if err != nil {
					return fmt.Errorf("%s in mode %s with %d services: %w", p.name, mode, size, err)
				}
				fmt.Fprintln(os.Stderr, r)
				all = append(all, r)
			}
		}
	}
	report(all)
	return nil
}
