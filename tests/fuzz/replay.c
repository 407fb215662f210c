/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz target on files, without a fuzzer: every seed and every input that once failed is a
 * test in each build, also where there is no clang. TAP on stdout.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *directory, const char *name, int number)
{
	static uint8_t buffer[1 << 20];
	char path[4096];
	uint8_t *exact;
	size_t size;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "rb");
	if (!file) {
		printf("not ok %d - %s cannot be read\n", number, name);
		return 1;
	}
	size = fread(buffer, 1, sizeof(buffer), file);
	fclose(file);
	exact = malloc(size + 1);
	memcpy(exact, buffer, size);
	printf("# %s\n", name);
	fflush(stdout);
	LLVMFuzzerTestOneInput(exact, size);
	free(exact);
	printf("ok %d - %s\n", number, name);
	fflush(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	int number = 0, failed = 0;

	for (int i = 1; i < argc; i++) {
		struct dirent **entries = NULL;
		int count = scandir(argv[i], &entries, NULL, alphasort);

		for (int k = 0; k < count; k++) {
			if (entries[k]->d_name[0] != '.')
				failed |= replay(argv[i], entries[k]->d_name, ++number);
			free(entries[k]);
		}
		free(entries);
	}
	printf("1..%d\n", number);
	return failed || !number;
}
