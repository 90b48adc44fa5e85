package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"text/template"
)

// functions are what Docker's templates know beside Go's own.
func functions() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			var out bytes.Buffer
			encoder := json.NewEncoder(&out)
			encoder.SetEscapeHTML(false)
			err := encoder.Encode(v)
			return strings.TrimSpace(out.String()), err
		},
		"join":  strings.Join,
		"split": strings.Split,
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
		"title": func(s string) string {
			if s == "" {
				return s
			}
			return strings.ToUpper(s[:1]) + s[1:]
		},
		"pad": func(s string, before, after int) string {
			return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
		},
		"println": fmt.Sprintln,
		"truncate": func(s string, length int) string {
			if runes := []rune(s); len(runes) > length {
				return string(runes[:length])
			}
			return s
		},
	}
}

func parseTemplate(text string) (*template.Template, error) {
	parsed, err := template.New("").Funcs(functions()).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("template parsing error: %w", err)
	}
	return parsed, nil
}

// header stands in for a row when the heads of a table's columns are printed.
type header map[string]string

// Label is the head of a column of one label.
func (header) Label(key string) string { return key }

// listing prints rows: as a table, one JSON object a line, or by a template.
type listing struct {
	head  header
	table string // the template of the plain table, without the word
	quiet string // the template of -q
}

// print writes rows in a format: "" or table for the plain table, json, a
// template, or the word table and a template for columns of one's own.
func print[R any](out io.Writer, l listing, format string, quiet bool, rows []R) error {
	table := false
	switch {
	case quiet && (format == "" || format == "table"):
		format = l.quiet
	case format == "" || format == "table":
		format, table = l.table, true
	case format == "json":
		format = "{{json .}}"
	case strings.HasPrefix(format, "table "):
		format, table = strings.TrimSpace(strings.TrimPrefix(format, "table")), true
	}
	format = unescape(format)
	parsed, err := parseTemplate(format)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if table {
		// A column that has no head is a mistake in a row or in the template.
		if err = parsed.Execute(&text, l.head); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		text.WriteByte('\n')
	}
	for _, row := range rows {
		if err = parsed.Execute(&text, row); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		text.WriteByte('\n')
	}
	if !table {
		_, err = out.Write(text.Bytes())
		return err
	}
	aligned := tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)
	_, err = aligned.Write(text.Bytes())
	return errors.Join(err, aligned.Flush())
}

// unescape lets a shell user write \t and \n.
func unescape(format string) string {
	return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format)
}

// inspected is one thing in both its forms: Go's names, and the daemon's words.
type inspected struct {
	typed any
	raw   json.RawMessage
}

// inspect prints things found by name: as an array of what the daemon said,
// or each by a template.
func (a *app) inspect(format string, names []string, find func(name string) (inspected, error)) error {
	var found []inspected
	var failed []error
	for _, name := range names {
		one, err := find(name)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		found = append(found, one)
	}
	if err := a.printInspected(format, found); err != nil {
		return err
	}
	return errors.Join(failed...)
}

func (a *app) printInspected(format string, found []inspected) error {
	if format == "" {
		raws := make([]json.RawMessage, len(found))
		for i, one := range found {
			raws[i] = one.raw
		}
		joined, err := json.Marshal(raws)
		if err != nil {
			return fmt.Errorf("joining answers: %w", err)
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, joined, "", "    "); err != nil {
			return fmt.Errorf("indenting answers: %w", err)
		}
		fmt.Fprintln(a.out, indented.String())
		return nil
	}
	if format == "json" {
		for _, one := range found {
			var compact bytes.Buffer
			if err := json.Compact(&compact, one.raw); err != nil {
				return fmt.Errorf("printing answer: %w", err)
			}
			fmt.Fprintln(a.out, compact.String())
		}
		return nil
	}
	parsed, err := parseTemplate(unescape(format))
	if err != nil {
		return err
	}
	for _, one := range found {
		text, err := render(parsed, one)
		if err != nil {
			return err
		}
		fmt.Fprintln(a.out, text)
	}
	return nil
}

// render tries Go's names first, then the names that the daemon wrote: users
// know both ({{.ID}} and {{.Id}}).
func render(parsed *template.Template, one inspected) (string, error) {
	var text bytes.Buffer
	typedErr := parsed.Execute(&text, one.typed)
	// Go writes an address that is not there as "invalid IP"; the daemon wrote
	// nothing, which is what a script expects.
	absent := strings.Contains(text.String(), netip.Addr{}.String()) || strings.Contains(text.String(), netip.Prefix{}.String())
	if typedErr == nil && !absent {
		return text.String(), nil
	}
	typedText := text.String()
	var raw any
	decoder := json.NewDecoder(bytes.NewReader(one.raw))
	decoder.UseNumber()
	if err := decoder.Decode(&raw); err != nil {
		return "", fmt.Errorf("reading answer: %w", err)
	}
	if object, ok := raw.(map[string]any); ok && object["ID"] == nil {
		object["ID"] = object["Id"]
	}
	text.Reset()
	err := parsed.Execute(&text, raw)
	switch {
	case err != nil && typedErr == nil:
		return typedText, nil
	case err != nil:
		return "", fmt.Errorf("template parsing error: %w", typedErr)
	}
	return text.String(), nil
}
