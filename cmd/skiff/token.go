package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/skiff-run/skiff/cmd/skiff/join"
	"github.com/skiff-run/skiff/internal/operator"
)

func newTokenCommand() *cobra.Command {
	var a access
	command := &cobra.Command{
		Use:   "token",
		Short: "Make, list and delete the tokens machines join with",
		Long: `Make, list and delete join tokens. A token is good for one role until it
expires, and for any number of machines. One for control machines opens the
cluster's keys to its holder: make it when it is needed, and let it be short.`,
		Args: cobra.NoArgs,
	}
	a.addFlags(command)
	command.AddCommand(newTokenCreateCommand(&a), newTokenListCommand(&a), newTokenDeleteCommand(&a))
	return command
}

func newTokenCreateCommand(a *access) *cobra.Command {
	var role, description string
	var ttl time.Duration
	command := &cobra.Command{
		Use:   "create --role control|worker",
		Short: "Make a join token and print the line that uses it",
		Example: `  skiff token create --role worker
  skiff token create --role control --ttl 15m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(join.Joinable, operator.Role(role)) {
				return fmt.Errorf("--role %q: must be one of %v", role, join.Joinable)
			}
			if ttl < time.Minute || ttl > 7*24*time.Hour {
				return fmt.Errorf("--ttl %s: must be between 1m and 168h", ttl)
			}
			administrator, err := a.administrator(cmd.Context())
			if err != nil {
				return err
			}
			token, err := administrator.CreateToken(cmd.Context(), operator.Role(role), ttl, description)
			if err != nil {
				return err
			}
			line, err := administrator.Line(token)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), line)
			return nil
		},
	}
	command.Flags().StringVar(&role, "role", "", "what a machine that joins with it becomes: control or worker")
	command.Flags().DurationVar(&ttl, "ttl", tokenLife, "how long the token is good for")
	command.Flags().StringVar(&description, "description", "", "a note that \"skiff token list\" shows")
	return command
}

func newTokenListCommand(a *access) *cobra.Command {
	var output string
	command := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the tokens, without their secrets", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			administrator, err := a.administrator(cmd.Context())
			if err != nil {
				return err
			}
			tokens, err := administrator.Tokens(cmd.Context())
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), output, tokens, func(w io.Writer) { printTokens(w, tokens, time.Now()) })
		},
	}
	addOutput(command, &output)
	return command
}

func printTokens(w io.Writer, tokens []join.Token, now time.Time) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "ID\tROLE\tEXPIRES\tDESCRIPTION")
	for _, token := range tokens {
		expires := "never"
		if left := token.Expires.Sub(now); !token.Expires.IsZero() {
			expires = "in " + duration.HumanDuration(left)
			if left <= 0 {
				expires = "expired"
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", token.ID, token.Role, expires, token.Description)
	}
	_ = table.Flush()
}

func newTokenDeleteCommand(a *access) *cobra.Command {
	return &cobra.Command{
		Use: "delete ID", Aliases: []string{"rm"}, Short: "End a token at once",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("give the id of one token, which \"skiff token list\" shows")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			administrator, err := a.administrator(cmd.Context())
			if err != nil {
				return err
			}
			if err := administrator.DeleteToken(cmd.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "deleted")
			return nil
		},
	}
}

func addOutput(command *cobra.Command, output *string) {
	command.Flags().StringVarP(output, "output", "o", "", "json for programs; a table for people when empty")
}

func checkOutput(output string) error {
	if output == "" || output == "json" {
		return nil
	}
	return fmt.Errorf("-o %q: must be json or left away", output)
}

// show prints the value as JSON or as people read it.
func show(w io.Writer, output string, value any, table func(io.Writer)) error {
	if output == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(value)
	}
	table(w)
	return nil
}
