// Package manual writes the manual pages and the shell completions of a program
// from its commands. Programs carry it only when they are built with the tag
// "man", for the packages: what is installed has neither its code nor its size.
package manual

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/skiff-run/skiff/internal/version"
)

// Main writes the pages of a program into FOLDER/man, in a section of the
// manual, and with completions FOLDER/completions/{bash,zsh,fish}, for the
// FOLDER that is the program's only argument; then it ends the process. It is
// called in place of the program's main.
func Main(command *cobra.Command, section string, completions bool) {
	if err := write(command, section, completions); err != nil {
		fmt.Fprintf(os.Stderr, "write the manual of %s: %v\n", command.Name(), err)
		os.Exit(1)
	}
	os.Exit(0)
}

func write(command *cobra.Command, section string, completions bool) error {
	if len(os.Args) != 2 {
		return errors.New("give the folder to write to, and nothing else")
	}
	folder := os.Args[1]
	pages := filepath.Join(folder, "man")
	if err := os.MkdirAll(pages, 0o755); err != nil {
		return err
	}
	command.DisableAutoGenTag = true
	display(command)
	header := &doc.GenManHeader{Section: section, Source: "Skiff " + version.Version, Manual: "Skiff", Date: date()}
	if err := doc.GenManTree(command, header, pages); err != nil {
		return err
	}
	if !completions {
		return nil
	}
	shells := filepath.Join(folder, "completions")
	if err := os.MkdirAll(shells, 0o755); err != nil {
		return err
	}
	return errors.Join(
		command.GenBashCompletionFileV2(filepath.Join(shells, "bash"), true),
		command.GenZshCompletionFile(filepath.Join(shells, "zsh")),
		command.GenFishCompletionFile(filepath.Join(shells, "fish"), true),
	)
}

// display has indented lines of the descriptions, which are commands and their
// columns, shown as they are: the library reads the text as Markdown, where that
// takes four spaces.
func display(command *cobra.Command) {
	lines := strings.Split(command.Long, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "  ") {
			lines[i] = "    " + line
		}
	}
	command.Long = strings.Join(lines, "\n")
	for _, each := range command.Commands() {
		display(each)
	}
}

// date is the day the pages were made, or the one that SOURCE_DATE_EPOCH says
// (reproducible-builds.org).
func date() *time.Time {
	now := time.Now()
	var seconds int64
	if _, err := fmt.Sscan(os.Getenv("SOURCE_DATE_EPOCH"), &seconds); err == nil {
		now = time.Unix(seconds, 0)
	}
	now = now.UTC()
	return &now
}
