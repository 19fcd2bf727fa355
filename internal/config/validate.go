package config

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// ValidateCommand returns the sub-command that reads a daemon's configuration as
// the daemon would, says what is wrong with it, and does nothing else.
func ValidateCommand[C any](f *Flags[C]) *cobra.Command {
	daemon := "skiff-" + strings.ToLower(strings.TrimSuffix(f.kind, "Configuration"))
	return &cobra.Command{
		Use:   "validate [FILE...]",
		Short: "Check the configuration and end",
		Long: fmt.Sprintf(`Read the configuration as the daemon would, with drop-ins, environment and flags, and
say what is wrong with it: file, line, field and remedy. FILEs are merged last, as
drop-ins that are not in place yet; without --config they are checked by themselves.

  %[1]s validate --config /etc/skiff/%[2]s.yaml             as it is
  %[1]s validate --config /etc/skiff/%[2]s.yaml new.yaml    as it would be`, daemon, strings.TrimPrefix(daemon, "skiff-")),
		RunE: func(cmd *cobra.Command, files []string) error {
			f.more = files
			if _, err := f.Read(); err != nil {
				return err
			}
			for _, name := range f.unknown {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: environment variable %s stands for no flag and is ignored\n", name)
			}
			read := "defaults, environment and flags"
			if len(f.files) > 0 {
				read = strings.Join(f.files, ", ")
			}
			fmt.Fprintf(cmd.OutOrStdout(), "valid: %s\n", read)
			return nil
		},
	}
}
