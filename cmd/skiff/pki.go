package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiff-run/skiff/cmd/skiff/up"
	"github.com/skiff-run/skiff/internal/pki"
)

// pkiOptions are common to the commands about certificates.
type pkiOptions struct{ root, output string }

func (o *pkiOptions) dir() string { return up.Layout{Root: o.root}.PKI() }

// print writes v as JSON, or by the text function.
func (o *pkiOptions) print(out io.Writer, v any, text func(io.Writer) error) error {
	switch o.output {
	case "json":
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(v)
	case "":
		return text(out)
	}
	return fmt.Errorf("output format %q is not known: use -o json, or leave it away", o.output)
}

func newPKICommand() *cobra.Command {
	options := &pkiOptions{}
	command := &cobra.Command{
		Use:   "pki",
		Short: "Look at, renew and replace the certificates of this machine",
		Long: `Look at, renew and replace the certificates of this machine.

Nothing of this is needed in daily life: skiff-control signs new certificates
when a third of their life is left, and replaces a certificate authority two
years before its end; agents and proxies renew theirs by themselves. No daemon
has to be restarted.`,
	}
	command.PersistentFlags().StringVar(&options.root, "root", "/", "folder below which the cluster keeps all its files")
	command.PersistentFlags().StringVarP(&options.output, "output", "o", "", "json, or empty for text")
	command.AddCommand(newPKICheckCommand(options), newPKIRenewCommand(options), newPKIRotateCommand(options))
	return command
}

func newPKICheckCommand(options *pkiOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "List this machine's certificates, their end and their problems",
		Long: `List the certificates of this machine: those in /etc/skiff/pki and those in the
kubeconfigs /etc/skiff/*.conf. The exit code is 1 when one has a problem, so that
a monitoring system can run it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := pki.Check(options.dir())
			if err != nil {
				return fmt.Errorf("%w; is this a machine of a cluster?", err)
			}
			if err := options.print(cmd.OutOrStdout(), found, func(out io.Writer) error { return printCertificates(out, found) }); err != nil {
				return err
			}
			bad := 0
			for _, c := range found {
				if c.Problem != "" {
					bad++
				}
			}
			if bad > 0 {
				return fmt.Errorf("%d of %d certificates have a problem", bad, len(found))
			}
			return nil
		},
	}
}

func printCertificates(out io.Writer, found []pki.Certificate) error {
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tSUBJECT\tSIGNED BY\tEXPIRES\tDAYS LEFT\tPROBLEM")
	for _, c := range found {
		authority, problem := c.Authority, c.Problem
		if authority == "" {
			authority = "<none>"
		}
		if problem == "" {
			problem = "<none>"
		}
		if c.NotAfter.IsZero() {
			fmt.Fprintf(w, "%s\t<none>\t%s\t<none>\t<none>\t%s\n", c.Name, authority, problem)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", c.Name, c.Subject, authority, c.NotAfter.UTC().Format(time.DateOnly), c.DaysLeft, problem)
	}
	return w.Flush()
}

func newPKIRenewCommand(options *pkiOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "renew [name ...]",
		Short: "Sign new certificates now, all or those named",
		Long: `Sign new certificates, with new keys, in place of those named as "skiff pki
check" names them, or of all that this machine can sign. What they say stays the
same. The daemons take them up by themselves; a copy of admin.conf on another
computer has to be copied again, and the old one works until its certificate ends.

  skiff pki renew                    every certificate
  skiff pki renew apiserver          the API server's
  skiff pki renew admin.conf         the administrator's kubeconfig`,
		RunE: func(cmd *cobra.Command, names []string) error {
			renewed, err := pki.Renew(options.dir(), names...)
			if len(renewed) > 0 || err == nil {
				result := struct {
					Renewed []string `json:"renewed"`
				}{renewed}
				err = errors.Join(err, options.print(cmd.OutOrStdout(), result, func(out io.Writer) error {
					_, err := fmt.Fprintln(out, "renewed: "+strings.Join(renewed, ", "))
					return err
				}))
			}
			return err
		},
	}
}
