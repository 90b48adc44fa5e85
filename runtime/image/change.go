package image

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/linkspan/linkspan"
)

// Change applies instructions of a Dockerfile to a configuration, those that
// docker import and commit know: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK,
// LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR. Each may hold several
// lines.
func Change(c *dockerspec.DockerOCIImageConfig, instructions []string) error {
	for _, text := range instructions {
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if line == "" {
				continue
			}
			word, rest, _ := strings.Cut(line, " ")
			if err := change(c, strings.ToUpper(word), strings.TrimSpace(rest)); err != nil {
				return linkspan.Errorf(linkspan.ErrInvalid, "invalid change %q: %w", line, err)
			}
		}
	}
	return nil
}

// expand puts values of variables that are set already into a text: $NAME or
// ${NAME}. A backslash before the dollar keeps it.
func expand(text string, env []string) string {
	const kept = "\x00" // no variable can hold it
	text = os.Expand(strings.ReplaceAll(text, `\$`, kept), func(name string) string {
		for _, variable := range env {
			if value, is := strings.CutPrefix(variable, name+"="); is {
				return value
			}
		}
		return ""
	})
	return strings.ReplaceAll(text, kept, "$")
}

func change(c *dockerspec.DockerOCIImageConfig, word, rest string) error {
	if rest == "" && word != "CMD" && word != "ENTRYPOINT" {
		return linkspan.Errorf(linkspan.ErrInvalid, "%s requires an argument", word)
	}
	switch word {
	case "CMD":
		c.Cmd = command(rest)
	case "ENTRYPOINT":
		c.Entrypoint = command(rest)
	case "ENV":
		pairs, err := pairs(rest)
		if err != nil {
			return err
		}
		for _, pair := range pairs {
			c.Env = setVariable(c.Env, pair[0], expand(pair[1], c.Env))
		}
	case "LABEL":
		pairs, err := pairs(rest)
		if err != nil {
			return err
		}
		for _, pair := range pairs {
			c.Labels = merged(c.Labels, map[string]string{pair[0]: pair[1]})
		}
	case "EXPOSE":
		for port := range strings.FieldsSeq(rest) {
			if !strings.Contains(port, "/") {
				port += "/tcp"
			}
			c.ExposedPorts = merged(c.ExposedPorts, map[string]struct{}{port: {}})
		}
	case "VOLUME":
		list := strings.Fields(rest)
		if strings.HasPrefix(rest, "[") {
			list = command(rest)
		}
		for _, dir := range list {
			c.Volumes = merged(c.Volumes, map[string]struct{}{dir: {}})
		}
	case "ONBUILD":
		c.OnBuild = append(c.OnBuild, rest)
	case "HEALTHCHECK":
		check, err := healthcheck(rest)
		if err != nil {
			return err
		}
		c.Healthcheck = check
	case "STOPSIGNAL":
		c.StopSignal = rest
	case "USER":
		c.User = rest
	case "WORKDIR":
		c.WorkingDir = rest
	default:
		return linkspan.Errorf(linkspan.ErrInvalid, "%s is not one of CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR", word)
	}
	return nil
}

// setVariable gives a variable its value where it stands, or at the end.
func setVariable(env []string, name, value string) []string {
	env = slices.Clone(env)
	for i, kv := range env {
		if strings.HasPrefix(kv, name+"=") {
			env[i] = name + "=" + value
			return env
		}
	}
	return append(env, name+"="+value)
}

// healthcheck reads [--interval=30s …] CMD command, or NONE.
func healthcheck(text string) (*dockerspec.HealthcheckConfig, error) {
	c := &dockerspec.HealthcheckConfig{}
	for strings.HasPrefix(text, "--") {
		option, rest, _ := strings.Cut(text, " ")
		if err := healthOption(c, option); err != nil {
			return nil, err
		}
		text = strings.TrimSpace(rest)
	}
	word, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	var list []string
	switch word = strings.ToUpper(word); {
	case word == "NONE" && rest == "":
		c.Test = []string{"NONE"}
	case word != "CMD" || rest == "":
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "HEALTHCHECK takes CMD with a command, or NONE, not %q", text)
	case json.Unmarshal([]byte(rest), &list) == nil:
		c.Test = append([]string{"CMD"}, list...)
	default:
		c.Test = []string{"CMD-SHELL", rest}
	}
	return c, nil
}

func healthOption(c *dockerspec.HealthcheckConfig, text string) (err error) {
	name, value, _ := strings.Cut(strings.TrimPrefix(text, "--"), "=")
	switch name {
	case "interval":
		c.Interval, err = time.ParseDuration(value)
	case "timeout":
		c.Timeout, err = time.ParseDuration(value)
	case "start-period":
		c.StartPeriod, err = time.ParseDuration(value)
	case "start-interval":
		c.StartInterval, err = time.ParseDuration(value)
	case "retries":
		c.Retries, err = strconv.Atoi(value)
	default:
		err = errors.New("no such option")
	}
	if err != nil {
		return linkspan.Errorf(linkspan.ErrInvalid, "HEALTHCHECK %s: %w", text, err)
	}
	return nil
}

// command reads ["a","b"], or a line for the shell.
func command(text string) []string {
	if text == "" {
		return nil
	}
	var list []string
	if json.Unmarshal([]byte(text), &list) == nil {
		return list
	}
	return []string{"/bin/sh", "-c", text}
}

// pairs reads k=v k2="v w", or the older k v.
func pairs(text string) ([][2]string, error) {
	words, err := words(text)
	if err != nil {
		return nil, err
	}
	if len(words) > 0 && !strings.Contains(words[0], "=") {
		key, value, _ := strings.Cut(text, " ")
		if value == "" {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "%s has no value", key)
		}
		return [][2]string{{key, strings.TrimSpace(value)}}, nil
	}
	var list [][2]string
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		if !ok || key == "" {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "%q is not KEY=VALUE", word)
		}
		list = append(list, [2]string{key, value})
	}
	return list, nil
}

// words splits at spaces that are not in quotes or behind a backslash.
func words(text string) ([]string, error) {
	var list []string
	var word strings.Builder
	quote, begun := byte(0), false
	for n := 0; n < len(text); n++ {
		c := text[n]
		switch {
		case c == '\\' && quote != '\'' && n+1 < len(text):
			n++
			word.WriteByte(text[n])
			begun = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, begun = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if begun {
				list = append(list, word.String())
				word.Reset()
				begun = false
			}
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	if quote != 0 {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "a quote is not closed")
	}
	if begun {
		list = append(list, word.String())
	}
	return list, nil
}
