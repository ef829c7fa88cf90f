package tailrace.flink;

import java.io.IOException;

/** The records of a topic do not fit the columns that the job was planned with: a retry cannot help. */
public class SchemaMismatchException extends IOException {
    public SchemaMismatchException(String message) {
        super(message);
    }
}
